"""The search itself: pure functions over arrays, without a clock, a file or a socket."""
