//! splitmix64: the same seed gives the same storm on every machine.

pub struct Rng(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// The seed is mixed, not multiplied by the step: neighbouring seeds would else be one storm, a step further on.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5eed_0fa5_704d))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True in `percent` of all cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index")
    }

    pub fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.index(all.len())].clone())
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn neighbouring_seeds_are_different_storms() {
    let numbers = |seed| {
        let mut rng = Rng::new(seed);
        std::array::from_fn::<u64, 50, _>(|_| rng.next())
    };
    let (first, second) = (numbers(7), numbers(8));
    assert!(first.iter().all(|n| !second.contains(n)));
}
