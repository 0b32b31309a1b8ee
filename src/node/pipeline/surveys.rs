use super::*; use crate::node::link::FrontReport; use crate::words::Word;
#[derive(Debug)] pub struct Surveys{pub digest_mismatches:u64,pub sessions_expired:u64}
#[derive(Debug)] pub struct Complete{pub front:usize,pub conn:ConnId}
impl Surveys { pub fn new(_:usize)->Self{Surveys{digest_mismatches:0,sessions_expired:0}} pub fn begin(&mut self,_:usize,_:ConnId,_:Word)->u64{0} pub fn add(&mut self,_:u64,_:Box<FrontReport>)->Option<Complete>{Some(Complete{front:0,conn:ConnId(0)})} pub fn applied(&mut self,_:Zxid,_:u64){} }
pub fn answer(_:&Complete,_:&Database,_:&PipelineOptions,_:&Snapshots,_:Now)->String{"imok".into()}
