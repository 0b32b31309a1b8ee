//! Four-letter words: what they are called and what they print.
