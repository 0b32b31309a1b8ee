//! Plain counters and histograms, owned by whoever counts.
