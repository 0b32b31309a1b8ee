use super::*; use crate::node::link::FrontReport; use crate::words::Word;
impl<L: FrontLink> Front<L> { pub(super) fn report(&self,_:Word)->FrontReport{FrontReport::default()} }
