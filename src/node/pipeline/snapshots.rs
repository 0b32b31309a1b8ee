use super::*;
#[derive(Debug)] pub struct Snapshots;
impl Snapshots { pub fn new(_:&PipelineOptions,_:Zxid)->Self{Snapshots} pub fn event(&mut self,_:SnapshotEvent,_:Now)->Option<Zxid>{None} pub fn step(&mut self,_:&mut Database,_:&mut Vec<Output>,_:Now){} pub fn has_more(&self)->bool{false} pub fn logged(&mut self,_:usize){} }
