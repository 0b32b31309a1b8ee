//! Text that does not grow without end.

/// Bytes of one answer: beyond what any tool reads, far below what would hurt.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

const CUT: &str = "(cut here: the answer is too long)\n";

/// An answer in the making. Once a piece does not fit, that piece and all later ones are left out.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    full: bool,
}

impl Text {
    pub fn push(&mut self, piece: &str) {
        self.full = self.full || self.out.len() + piece.len() + 1 + CUT.len() > TEXT_BYTES_MAX;
        if !self.full {
            self.out.push_str(piece);
        }
    }

    pub fn line(&mut self, line: &str) {
        self.push(line);
        if !self.full {
            self.out.push('\n');
        }
    }

    /// Whether nothing more is taken, so that loops may end.
    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn finish(mut self) -> String {
        if self.full {
            if !self.out.ends_with('\n') {
                self.out.push('\n');
            }
            self.out.push_str(CUT);
        }
        assert!(self.out.len() <= TEXT_BYTES_MAX);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stops_at_its_bound_and_says_so() {
        let mut text = Text::default();
        let line = "x".repeat(1 << 20);
        while !text.is_full() {
            text.line(&line);
        }
        text.line("y");
        let text = text.finish();
        assert!(text.ends_with(CUT) && !text.contains('y'));
        assert!(text.len() <= TEXT_BYTES_MAX);
    }
}
