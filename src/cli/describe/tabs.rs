//! Aligns cells parted by tabs as Go's tabwriter does for kubectl. Pure.

/// Space between columns.
const PADDING: usize = 2;

/// Each cell that ends with a tab is padded to the widest of its column; a column is made of the lines that follow each
/// other and have that cell. What stands after the last tab is left alone.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    column(&lines, &mut widths, 0, lines.len(), 0);
    let mut out = String::new();
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            out.push_str(cell);
            if index + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

/// Sets the widths of column `index` and of those within it, for lines `from..to`.
fn column(lines: &[Vec<&str>], widths: &mut [Vec<usize>], from: usize, to: usize, index: usize) {
    let mut at = from;
    while at < to {
        let has = |line: usize| index + 1 < lines[line].len();
        if !has(at) {
            at += 1;
            continue;
        }
        let end = (at..to).find(|line| !has(*line)).unwrap_or(to);
        let cells = (at..end).map(|line| lines[line][index].chars().count());
        let widest = cells.max().unwrap_or(0);
        // A column without any text takes no room, as in Go.
        let width = if widest == 0 { 0 } else { widest + PADDING };
        widths[at..end].iter_mut().for_each(|w| w[index] = width);
        column(lines, widths, at, end, index + 1);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_reach_as_far_as_lines_follow_each_other() {
        let text = "Name:\tweb\nStart Time:\tnow\nContainers:\n  web:\n    Image:\ti\n    Port:\t80\nA:\tb\n";
        let aligned = "Name:        web\nStart Time:  now\nContainers:\n  web:\n    Image:  i\n    Port:   80\nA:          b\n";
        assert_eq!(align(text), aligned);
    }

    #[test]
    fn columns_within_columns_are_aligned_too() {
        let text = "  Type\tReason\tMessage\n  Normal\tPulled\tx y\n  Warning\tB\tz\n";
        let aligned = "  Type     Reason  Message\n  Normal   Pulled  x y\n  Warning  B       z\n";
        assert_eq!(align(text), aligned);
        assert_eq!(align("a\t\tb\nccc\t\td\n"), "a    b\nccc  d\n");
    }
}
