//! Logs that were cut, and logs begun anew: whatever instant the power goes, what was cut never comes back once that was
//! said, and what was not cut is there.

use super::*;
use crate::txnlog::SegmentWork;
use crate::types::{Epoch, Instant};

/// A log of epoch 0 in two batches: 1 to 3 and 4 to 6.
fn before_the_cut(options: crate::txnlog::WriterOptions) -> Disk {
    let mut disk = Disk::new(options);
    disk.append(3, 700);
    disk.run();
    disk.append(3, 700);
    disk.run();
    disk
}

fn cut(disk: &mut Disk, to: i64) {
    disk.writer.truncate(Zxid(to));
    disk.zxid = Zxid::new(Epoch(Zxid(to).epoch().0 + 1), 0).0;
}

fn zxids(image: &Image) -> Vec<i64> {
    let (result, entries) = run(image, BASE);
    let recovered = result.unwrap_or_else(|error| panic!("{error}"));
    let zxids: Vec<i64> = entries.iter().map(|entry| format::entry_zxid(entry).unwrap().0).collect();
    assert_eq!(recovered.start.zxid_last.0, zxids.last().copied().unwrap_or(0));
    zxids
}

const KEPT: [i64; 4] = [1, 2, 3, 4];
const EPOCH_1: i64 = 1 << 32;

#[test]
fn a_cut_is_durable_by_itself_and_the_log_goes_on_behind_it() {
    let mut disk = before_the_cut(options());
    cut(&mut disk, 4);
    assert!(disk.writer.is_cutting());
    assert_eq!((disk.writer.zxid_appended(), disk.writer.zxid_durable()), (Zxid(4), Zxid(4)));
    let writes = disk.run();
    // The cut, and what proves it.
    assert_eq!(
        writes.iter().map(|write| write.offset_bytes).collect::<Vec<_>>(),
        [0, 2 * BLOCK_BYTES as u64]
    );
    assert!(!disk.writer.is_cutting() && disk.writer.is_idle());
    assert_eq!(zxids(&disk.segments), KEPT);
    disk.append(2, 100);
    disk.run();
    assert_eq!(zxids(&disk.segments), [1, 2, 3, 4, EPOCH_1 + 1, EPOCH_1 + 2]);
    // Again, further back, and after a restart.
    cut(&mut disk, 2);
    disk.run();
    assert_eq!(zxids(&disk.segments), [1, 2]);
    let start = run(&disk.segments, BASE).0.unwrap().start;
    let mut disk = Disk::from(options(), start, disk.segments);
    disk.zxid = 2 * EPOCH_1;
    disk.append(1, 10);
    disk.run();
    assert_eq!(zxids(&disk.segments), [1, 2, 2 * EPOCH_1 + 1]);
    let (result, entries) = run(&disk.segments, Base { zxid: Zxid(2), ..BASE });
    assert_eq!((result.unwrap().entry_count, entries.len()), (1, 1));
}

#[test]
fn a_cut_drops_what_was_not_handed_out_and_voids_what_was() {
    for written in 0..4 {
        let mut disk = Disk::new(options());
        for _ in 0..4 {
            disk.append(30, 700);
            disk.prepare();
        }
        for _ in 0..written {
            disk.prepare();
            let write = disk.writer.next_write(Instant(0)).unwrap();
            disk.put(&write);
            disk.writer.written(write.id, write.bytes);
        }
        // Under way while the cut comes.
        disk.prepare();
        let write = disk.writer.next_write(Instant(0)).unwrap();
        cut(&mut disk, 35);
        assert_eq!(disk.writer.next_write(Instant(0)), None, "the cut waits for what is before it");
        disk.put(&write);
        disk.writer.written(write.id, write.bytes);
        disk.append(1, 10);
        disk.run();
        assert!(!disk.writer.is_cutting() && disk.writer.backlog_bytes() == 0);
        let expected: Vec<i64> = (1..=35).chain([EPOCH_1 + 1]).collect();
        assert_eq!(zxids(&disk.segments), expected, "after {written} writes");
    }
}

#[test]
fn nothing_is_cut_where_the_log_ends_there_already() {
    let mut disk = before_the_cut(options());
    disk.writer.truncate(Zxid(6));
    assert!(!disk.writer.is_cutting());
    assert_eq!(disk.run(), []);
}

#[test]
#[should_panic(expected = "it cannot be cut to")]
fn a_cut_before_the_log_begins_is_refused() {
    let mut disk = Disk::from(options(), Start::fresh(1, Zxid(9)), Image::new());
    disk.append(2, 10);
    disk.run();
    disk.writer.truncate(Zxid(8));
}

/// T-CRASH 1: a log with a cut, of any length. The cut is there or it is not; nothing else can be.
#[test]
fn a_cut_of_any_length_is_whole_or_not_there() {
    let mut disk = before_the_cut(options());
    cut(&mut disk, 4);
    let segment = disk.run()[0].segment;
    let mut image = disk.segments.clone();
    for length in (0..4 * BLOCK_BYTES).rev() {
        image.get_mut(&segment).unwrap()[length] = 0;
        let found = zxids(&image);
        // What is zero anyway at the end of the header block is not missed.
        let has_header = SegmentHeader::decode(&image[&segment]).is_some();
        assert_eq!(found.len(), if has_header { 4 } else { 6 }, "length {length}");
    }
}

/// T-CRASH 1: any byte of a log with a cut changed: refused, or a prefix of what counts; what was cut stays away.
#[test]
fn no_flipped_byte_brings_back_what_was_cut() {
    let mut disk = before_the_cut(options());
    cut(&mut disk, 4);
    let cut_in = disk.run()[0].segment;
    for goes_on in [false, true] {
        if goes_on {
            disk.append(3, 900);
            disk.run();
            disk.seal();
        }
        let expected = zxids(&disk.segments);
        let mut image = disk.segments.clone();
        for segment in [SegmentId(1), cut_in] {
            for at in (0..5 * BLOCK_BYTES).step_by(if goes_on { 7 } else { 1 }) {
                image.get_mut(&segment).unwrap()[at] ^= 1 << (at % 8);
                if let (Ok(recovered), entries) = run(&image, BASE) {
                    let found = entries.iter().map(|entry| format::entry_zxid(entry).unwrap().0);
                    assert!(expected.iter().copied().take(entries.len()).eq(found), "{segment} offset {at}");
                    let all_durable = recovered.start.zxid_last.0 == *expected.last().unwrap();
                    assert!(all_durable, "{segment} offset {at}: ends at {}", recovered.start.zxid_last);
                }
                image.get_mut(&segment).unwrap()[at] ^= 1 << (at % 8);
            }
        }
    }
}

/// T-CRASH 2: every subset of the sectors of the write that cuts, in a new file and in a recycled one.
#[test]
fn any_sectors_of_a_cut_under_way_may_survive() {
    for is_recycled in [false, true] {
        let mut disk = before_the_cut(options());
        cut(&mut disk, 4);
        disk.prepare();
        let write = disk.writer.next_write(Instant(0)).unwrap();
        let before = if is_recycled { recycled(disk.segments.clone(), &[]) } else { disk.segments.clone() };
        let before = Image::from_iter(before.into_iter().map(|(id, bytes)| {
            // Only the file of the cut is recycled.
            if id == write.segment { (id, bytes) } else { (id, disk.segments[&id].clone()) }
        }));
        let sectors = write.bytes.len() / 512;
        for subset in (0u32..1 << sectors).step_by(if is_recycled { 523 } else { 97 }) {
            let mut image = before.clone();
            for at in (0..sectors).filter(|bit| subset & (1 << bit) != 0).map(|bit| bit * 512) {
                image.get_mut(&write.segment).unwrap()[write.offset_bytes as usize + at..][..512]
                    .copy_from_slice(&write.bytes[at..at + 512]);
            }
            let found = zxids(&image);
            assert!(found == KEPT || found == [1, 2, 3, 4, 5, 6], "subset {subset:b}: {found:?}");
            let start = run(&image, BASE).0.unwrap().start;
            assert_eq!(run(&image, BASE).0.unwrap().start, start, "twice the same");
            let mut options = options();
            options.salt_seed ^= 99;
            let mut disk = Disk::from(options, start, image);
            // What is not live is gone at once, and nothing changes by that.
            disk.prepare();
            assert_eq!(zxids(&disk.segments), found, "subset {subset:b}");
            disk.zxid = EPOCH_1;
            disk.append(1, 10);
            disk.run();
            let expected: Vec<i64> = found.into_iter().chain([EPOCH_1 + 1]).collect();
            assert_eq!(zxids(&disk.segments), expected, "subset {subset:b}");
        }
    }
}

/// Crash after crash with cuts between: what is found is a prefix of the log as it was before a cut that was not durable yet, or
/// as it is, and never lacks what was acknowledged and not cut (P1, S5, S6, G9).
#[test]
fn a_crash_loop_with_cuts_finds_one_history() {
    let mut random = Random(0xc07);
    for round in 0..80 {
        let mut options = options();
        options.in_flight_max = 1 + round % 2;
        options.segment_bytes = 32 << 10;
        let mut disk = Disk::new(options);
        let mut now: Vec<i64> = Vec::new();
        for crash in 0..8 {
            options.salt_seed = random.next();
            let mut acknowledged = now.len();
            // The histories a crash may bring back.
            let mut earlier: Vec<Vec<i64>> = Vec::new();
            let mut under_way: Vec<LogWrite> = Vec::new();
            for _ in 0..random.below(50) {
                match random.below(9) {
                    0..4 => {
                        disk.append(1, random.below(5_000) as usize);
                        now.push(disk.zxid);
                    }
                    4..6 => {
                        disk.prepare();
                        under_way.extend(disk.writer.next_write(Instant(0)));
                    }
                    6 if !now.is_empty() => {
                        let keep = now.len() - random.below(now.len().min(9) as u64) as usize;
                        if keep == now.len() {
                            continue;
                        }
                        earlier.push(now.clone());
                        now.truncate(keep);
                        acknowledged = acknowledged.min(keep);
                        let to = now.last().copied().unwrap_or(0);
                        disk.writer.truncate(Zxid(to));
                        disk.zxid = Zxid::new(Epoch(Zxid(disk.zxid).epoch().0 + 1), 0).0;
                    }
                    _ if !under_way.is_empty() => {
                        let done = under_way.swap_remove(random.below(under_way.len() as u64) as usize);
                        disk.put(&done);
                        let zxid = disk.writer.written(done.id, Vec::new()).0;
                        if !disk.writer.is_cutting() {
                            earlier.clear();
                            acknowledged = now.iter().position(|&z| z == zxid).map_or(0, |at| at + 1);
                        }
                    }
                    _ => {
                        if let Some(at) = disk.writer.next_timer() {
                            disk.writer.on_timer(at);
                        }
                    }
                }
            }
            for write in &under_way {
                for block in (0..write.bytes.len() / BLOCK_BYTES).filter(|_| random.below(2) == 0) {
                    let at = block * BLOCK_BYTES;
                    disk.segments.get_mut(&write.segment).unwrap()[write.offset_bytes as usize + at..]
                        [..BLOCK_BYTES]
                        .copy_from_slice(&write.bytes[at..at + BLOCK_BYTES]);
                }
            }
            let found = zxids(&disk.segments);
            let place = format!("round {round} crash {crash}: {found:x?} of {now:x?} or {earlier:x?}");
            assert!(found.len() >= acknowledged, "{place}");
            assert!(earlier.iter().chain([&now]).any(|history| history.starts_with(&found)), "{place}");
            let start = run(&disk.segments, BASE).0.unwrap().start;
            let epoch = Zxid(disk.zxid).epoch().0 + 1;
            disk = Disk::from(options, start, disk.segments);
            disk.prepare();
            assert_eq!(zxids(&disk.segments), found, "{place}");
            disk.zxid = Zxid::new(Epoch(epoch), 0).0;
            now = found;
        }
    }
}

/// A snapshot is of a state the log went through; one of a history that was cut away is noticed.
#[test]
fn a_snapshot_of_what_was_cut_is_refused() {
    let mut disk = before_the_cut(options());
    cut(&mut disk, 4);
    disk.append(1, 10);
    disk.run();
    for zxid in [5, 6] {
        let result = run(&disk.segments, Base { zxid: Zxid(zxid), ..BASE }).0;
        let error = result.unwrap_err().to_string();
        assert!(error.contains("no state that this log went through"), "{error}");
    }
    // One taken when the epoch had begun and had no entry yet is not.
    assert!(run(&disk.segments, Base { zxid: Zxid(EPOCH_1), ..BASE }).0.is_ok());
}

/// A cut to a zxid that the log never held is a hole, not a cut.
#[test]
fn a_cut_to_what_was_never_there_is_refused() {
    let mut disk = before_the_cut(options());
    disk.zxid = EPOCH_1;
    disk.append(1, 10);
    disk.run();
    disk.writer.truncate(Zxid(20));
    disk.run();
    let result = run(&disk.segments, BASE).0;
    assert!(
        matches!(result, Err(RecoverError::Gap { zxid_before: Zxid(6), zxid_after: Zxid(20), .. })),
        "{result:?}"
    );
}

#[test]
fn reading_can_end_before_the_log_does() {
    let mut disk = Disk::new(options());
    disk.append(200, 700);
    disk.run();
    let (result, entries) = run(&disk.segments, Base { until: Some(Zxid(120)), ..BASE });
    assert_eq!((result.unwrap().start.zxid_last, entries.len()), (Zxid(120), 120));
}

/// A log begun anew: the snapshot that replaced the history names its first segment; what is older does not count, whatever is in it.
#[test]
fn a_log_begun_anew_has_nothing_of_before() {
    let mut disk = before_the_cut(options());
    disk.append(2, 700);
    let first = disk.writer.restart_segment();
    let base = Base { zxid: Zxid(EPOCH_1 + 7), segment_first: first, ..BASE };
    // The snapshot is durable, nothing else has happened yet.
    let recovered = run(&disk.segments, base).0.unwrap();
    assert_eq!((recovered.start.zxid_last, recovered.entry_count), (base.zxid, 0));
    assert_eq!(recovered.start.live, []);
    disk.writer.restart_after(base.zxid);
    assert_eq!(disk.writer.zxid_durable(), base.zxid);
    assert!(disk.writer.is_idle());
    disk.prepare();
    assert!(!disk.segments.contains_key(&SegmentId(1)), "given up");
    // No file is left: ids go on from the one the snapshot names.
    assert_eq!(run(&Image::new(), base).0.unwrap().start.segment_next, first);
    disk.zxid = base.zxid.0;
    disk.append(3, 10);
    disk.run();
    // What was given up came back with a crash, damaged even.
    disk.segments.insert(SegmentId(1), vec![7; 64 << 10]);
    let (result, entries) = run(&disk.segments, base);
    let recovered = result.unwrap();
    assert_eq!((recovered.start.zxid_last, entries.len()), (Zxid(EPOCH_1 + 10), 3));
    assert!(recovered.start.unused.contains(&SegmentId(1)));
    assert_eq!(recovered.start.live[0].id, first);
}

#[test]
fn segments_are_given_up_when_nothing_is_under_way_to_them() {
    let mut disk = before_the_cut(options());
    disk.append(1, 10);
    let write = disk.writer.next_write(Instant(0)).unwrap();
    disk.append(1, 10);
    disk.writer.restart_segment();
    disk.writer.restart_after(Zxid(EPOCH_1));
    let mut work = Vec::new();
    disk.writer.drain_work(&mut work);
    // The one that was ready for more goes at once, the one that is written to does not.
    work.retain(|work| matches!(work, SegmentWork::Retire(_)));
    assert_eq!(work, [SegmentWork::Retire(SegmentId(2))]);
    assert_eq!(disk.writer.written(write.id, write.bytes), Zxid(EPOCH_1));
    work.clear();
    disk.writer.drain_work(&mut work);
    assert_eq!(work, [SegmentWork::Retire(SegmentId(1))]);
}

/// Between the naming of the first segment and the beginning of the log there, what is left is written, and a seal may need a segment more.
#[test]
fn the_segment_named_for_a_restart_stays_the_first() {
    let mut random = Random(5);
    for _ in 0..50 {
        let mut small = options();
        small.segment_bytes = 16 << 10;
        let mut disk = Disk::new(small);
        disk.append(1 + random.below(9) as usize, 1_500);
        if random.below(2) == 0 {
            disk.run();
        }
        let first = disk.writer.restart_segment();
        disk.prepare();
        for _ in 0..random.below(9) {
            disk.run();
            if let Some(at) = disk.writer.next_timer() {
                disk.writer.on_timer(at);
            }
        }
        let base = Base { zxid: Zxid(EPOCH_1 + 7), segment_first: first, ..BASE };
        disk.writer.restart_after(base.zxid);
        disk.zxid = base.zxid.0;
        disk.append(2, 1_500);
        disk.run();
        let (result, entries) = run(&disk.segments, base);
        let start = result.unwrap().start;
        assert_eq!((start.live[0].id, entries.len()), (first, 2));
        assert!(disk.segments.keys().all(|&id| id >= first), "{:?}", disk.segments.keys());
    }
}

#[test]
#[should_panic(expected = "nothing was appended since")]
fn nothing_is_appended_before_a_log_begins_anew() {
    let mut disk = before_the_cut(options());
    disk.writer.restart_segment();
    disk.append(1, 10);
    disk.writer.restart_after(Zxid(EPOCH_1));
}
