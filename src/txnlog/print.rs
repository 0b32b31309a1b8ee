//! Logs as text, one line a transaction, for `inspect`.

use crate::proto::Acl;
use crate::proto::txn::{CreateKind, Txn, TxnEntry};
use crate::txnlog::format::{BLOCK_BYTES, BatchHeader, SegmentHeader, check_body, entries};
use crate::txnlog::zookeeper::{Chain, FileEnd, ReadAt, ZkLogError, read_file};

/// A transaction: zxid, time, session, cxid, what it does, digest.
pub fn entry_line(entry: &[u8]) -> String {
    let entry = match TxnEntry::decode(entry) {
        Ok(entry) => entry,
        Err(error) => return format!("{} bytes that are no transaction: {error}", entry.len()),
    };
    let header = entry.header;
    let digest = entry
        .digest
        .map_or(String::new(), |digest| format!(" digest {}:{}", digest.version, digest.tree_digest));
    format!(
        "{} {} session {} cxid {} {}{digest}",
        header.zxid,
        time_text(header.time_ms),
        header.session,
        header.cxid,
        txn_text(&entry.txn)
    )
}

fn txn_text(txn: &Txn<'_>) -> String {
    let size = |data: &Option<&[u8]>| data.map_or("null".to_owned(), |data| format!("{} bytes", data.len()));
    match txn {
        Txn::Create { path, data, acl, kind, parent_cversion } => {
            let kind = match kind {
                CreateKind::Plain { ephemeral: false } => "create".to_owned(),
                CreateKind::Plain { ephemeral: true } => "create ephemeral".to_owned(),
                CreateKind::Container => "create container".to_owned(),
                CreateKind::Ttl { ttl_ms } => format!("create ttl {ttl_ms} ms"),
            };
            let acl = acl_text(*acl);
            format!("{kind} {path:?} {} acl {acl} parent cversion {parent_cversion}", size(data))
        }
        Txn::Delete { path } => format!("delete {path:?}"),
        Txn::SetData { path, data, version } => format!("setData {path:?} {} version {version}", size(data)),
        Txn::SetAcl { path, acl, version } => {
            format!("setACL {path:?} acl {} version {version}", acl_text(*acl))
        }
        Txn::Check { path, version } => format!("check {path:?} version {version}"),
        Txn::Multi(multi) => {
            let ops: Vec<String> = multi.ops().map(|(_, op)| txn_text(&op)).collect();
            format!("multi [{}]", ops.join("; "))
        }
        Txn::CreateSession { timeout_ms } => format!("createSession timeout {timeout_ms} ms"),
        Txn::CloseSession { paths: None } => "closeSession".to_owned(),
        Txn::CloseSession { paths: Some(paths) } => format!("closeSession {paths:?}"),
        Txn::Error { err } => format!("error {err}"),
    }
}

/// One segment of our own log, block by block: every sound batch, also void ones and those of an older use of the file.
pub fn segment_lines(bytes: &[u8], line: &mut dyn FnMut(String)) {
    let Some(header) = SegmentHeader::decode(bytes) else {
        line("no sound segment header: prepared and not begun, or damaged".into());
        return;
    };
    line(format!(
        "segment {} run {} identity {:016x} salt {:016x} first batch {} after {} of {} bytes, format {}",
        header.segment,
        header.run,
        header.identity,
        header.salt,
        header.batch_first,
        header.zxid_before,
        header.segment_bytes,
        header.version
    ));
    let mut at = BLOCK_BYTES;
    let mut unsound_from = None;
    while at + BLOCK_BYTES <= bytes.len() {
        let here = at;
        let batch = BatchHeader::decode(header.identity, &bytes[here..])
            .filter(|batch| batch.salt == header.salt && batch.offset_bytes == here as u64)
            .and_then(|batch| Some((batch, bytes.get(here..here + batch.batch_bytes() as usize)?)));
        let Some((batch, all)) = batch else {
            unsound_from.get_or_insert(here);
            at += BLOCK_BYTES;
            continue;
        };
        if let Some(from) = unsound_from.take() {
            line(format!("  offset {from}: {} bytes that are no batch", here - from));
        }
        let what = if batch.record_count == 0 { "seal" } else { "batch" };
        line(format!(
            "  offset {here}: {what} {} after {} with {} records, {} bytes, durable before batch {} up to {}",
            batch.number,
            batch.zxid_before,
            batch.record_count,
            batch.body_bytes,
            batch.durable_before,
            batch.zxid_durable
        ));
        match check_body(&batch, all) {
            Ok(()) => {
                entries(&batch, all).for_each(|(_, entry)| line(format!("    {}", entry_line(entry))));
                at += all.len();
            }
            Err(why) => {
                line(format!("    unsound: {why}"));
                at += BLOCK_BYTES;
            }
        }
    }
}

/// A log file of a ZooKeeper.
pub fn zookeeper_lines(
    source: &mut dyn ReadAt,
    file_bytes: u64,
    line: &mut dyn FnMut(String),
) -> Result<(), ZkLogError> {
    let end = read_file(source, file_bytes, &mut Chain::anywhere(), &mut |_, entry| {
        line(entry_line(entry));
        Ok(())
    })?;
    match end {
        FileEnd::Clean => line("end of the log".into()),
        FileEnd::Torn { offset_bytes } => {
            line(format!(
                "offset {offset_bytes}: a transaction that was being written when the server stopped"
            ));
        }
    }
    Ok(())
}

/// `cdrwa world:anyone, ...`: permissions as ZooKeeper's shell writes them.
pub fn acl_text(acl: Acl<'_>) -> String {
    let entries: Vec<String> = acl
        .entries()
        .map(|entry| {
            let letters = [(4, 'c'), (8, 'd'), (1, 'r'), (2, 'w'), (16, 'a')];
            let perms: String = letters
                .iter()
                .filter(|(bit, _)| entry.perms.0 & bit != 0)
                .map(|(_, letter)| letter)
                .collect();
            let scheme = entry.scheme.as_deref().unwrap_or("null");
            let id = entry.id.as_deref().unwrap_or("null");
            format!("{perms} {scheme}:{id}")
        })
        .collect();
    format!("[{}]", entries.join(", "))
}

/// Milliseconds since 1970 as UTC: `2026-11-20T20:35:05.123Z`.
pub fn time_text(time_ms: i64) -> String {
    let days = time_ms.div_euclid(86_400_000);
    let ms = time_ms.rem_euclid(86_400_000);
    // Days to a date of the Gregorian calendar, counting years from March (H. Hinnant's method).
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txnlog::SegmentId;
    use crate::txnlog::testing::{Disk, options};

    #[test]
    fn times_are_dates() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time_text(1_795_206_906_011), "2026-11-20T20:35:06.011Z");
        assert_eq!(time_text(-1), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_segment_prints_batches_records_and_what_is_unsound() {
        let mut disk = Disk::new(options());
        disk.append(2, 0);
        disk.run();
        disk.append(1, 0);
        disk.run();
        disk.seal();
        let bytes = disk.segments.get_mut(&SegmentId(1)).unwrap();
        let mut lines = Vec::new();
        segment_lines(bytes, &mut |line| lines.push(line));
        assert!(lines[0].starts_with("segment 0000000000000001 run 1 "), "{lines:?}");
        assert!(lines[1].contains("batch 1 after 0x0 with 2 records"), "{lines:?}");
        assert!(lines[2].contains("0x1 1970-01-01T00:00:00.003Z session 0x1 cxid 2 error -101"), "{lines:?}");
        assert!(lines.last().unwrap().contains("seal 3"), "{lines:?}");
        bytes[2 * BLOCK_BYTES] ^= 1;
        let mut lines = Vec::new();
        segment_lines(bytes, &mut |line| lines.push(line));
        assert!(
            lines.iter().any(|line| line.contains("offset 8192: 4096 bytes that are no batch")),
            "{lines:?}"
        );
    }
}
