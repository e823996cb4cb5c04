//! podstead's direct runtime on libcontainer, without any daemon.
