//! Frames captured from Apache ZooKeeper (a fresh standalone server, one session): ours are the same, byte for byte.
//!
//! `>` goes to the server, `<` comes from it; hex includes the length prefix.

use ringkeeper::client::{
    ACL_OPEN, Conversation, Event, Incoming, Message, MultiResult, Reply, Request, Response, WatchMode,
};
use ringkeeper::jute::Reader;
use ringkeeper::proto::client::{
    ConnectRequest, ConnectResponse, CreateMode, CreateRequest, EventType, Frame, MultiHeader, OpCode,
    ReadRequest, RequestHeader, SetDataRequest, put_notification,
};
use ringkeeper::proto::{ErrorCode, Stat};
use ringkeeper::types::{SessionId, Zxid};

const PASSWORD: [u8; 16] =
    [0xe9, 0xc6, 0xba, 0x59, 0xc2, 0x38, 0x9d, 0x3c, 0x6f, 0x42, 0xc8, 0x46, 0xdb, 0x4b, 0xea, 0x24];

const CONNECT: &str = "0000002d 00000000 0000000000000000 00002710 0000000000000000 00000010 00000000000000000000000000000000 00";
const CONNECTED: &str =
    "00000025 00000000 00002710 01000031268d0000 00000010 e9c6ba59c2389d3c6f42c846db4bea24 00";
const CREATE: &str = "00000032 00000001 00000001 00000002 2f61 00000001 78 00000001 0000001f 00000005 776f726c64 \
     00000006 616e796f6e65 00000000";
const CREATED: &str = "00000016 00000001 0000000000000002 00000000 00000002 2f61";
const EXISTS: &str = "0000000f 00000002 00000003 00000002 2f61 01";
const EXISTS_ANSWER: &str = "00000054 00000002 0000000000000002 00000000 0000000000000002 0000000000000002 \
     000001a1fa155f47 000001a1fa155f47 00000000 00000000 00000000 0000000000000000 00000001 00000000 0000000000000002";
const SET_DATA: &str = "00000017 00000003 00000005 00000002 2f61 00000001 79 00000000";
const CHANGED: &str = "0000001e ffffffff 0000000000000003 00000000 00000003 00000003 00000002 2f61";
const SET_DATA_ANSWER: &str = "00000054 00000003 0000000000000003 00000000 0000000000000002 0000000000000003 \
     000001a1fa155f47 000001a1fa155f72 00000001 00000000 00000000 0000000000000000 00000001 00000000 0000000000000002";
const GET_MISSING: &str = "0000000f 00000004 00000004 00000002 2f6e 00";
const GET_MISSING_ANSWER: &str = "00000010 00000004 0000000000000003 ffffff9b";
const MULTI: &str = "00000069 00000005 0000000e 00000001 00 ffffffff 00000002 2f62 00000000 00000001 0000001f \
     00000005 776f726c64 00000006 616e796f6e65 00000000 0000000d 00 ffffffff 00000002 2f61 00000009 00000002 00 \
     ffffffff 00000002 2f61 ffffffff ffffffff 01 ffffffff";
const MULTI_ANSWER: &str = "00000040 00000005 0000000000000004 00000000 ffffffff 00 00000000 00000000 ffffffff 00 \
     ffffff99 ffffff99 ffffffff 00 fffffffe fffffffe ffffffff 01 ffffffff";
const ADD_WATCH: &str = "00000012 00000006 0000006a 00000002 2f61 00000001";
const ADD_WATCH_ANSWER: &str = "00000014 00000006 0000000000000004 00000000 00000000";
const PING: &str = "00000008 fffffffe 0000000b";
const PING_ANSWER: &str = "00000010 fffffffe 0000000000000004 00000000";
const AUTH: &str = "0000001d fffffffc 00000064 00000000 00000006 646967657374 00000003 753a70";
const AUTH_ANSWER: &str = "00000010 fffffffc 0000000000000000 00000000";
const WHO_AM_I: &str = "00000008 00000007 0000006b";
const WHO_AM_I_ANSWER: &str = "00000036 00000007 0000000000000004 00000000 00000002 00000002 6970 00000009 \
     3132372e302e302e31 00000006 646967657374 00000001 75";
const CREATE_TTL: &str = "00000039 00000008 00000015 00000002 2f74 00000000 00000001 0000001f 00000005 776f726c64 \
     00000006 616e796f6e65 00000005 00000000000003e8";
const CREATE_TTL_ANSWER: &str = "00000010 00000008 0000000000000005 fffffffa";
const CLOSE: &str = "00000008 00000009 fffffff5";
const CLOSE_ANSWER: &str = "00000010 00000009 0000000000000006 00000000";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn stat(mzxid: i64, mtime_ms: i64, version: i32) -> Stat {
    Stat {
        czxid: Zxid(2),
        mzxid: Zxid(mzxid),
        ctime_ms: 0x1a1_fa15_5f47,
        mtime_ms,
        version,
        data_bytes: 1,
        pzxid: Zxid(2),
        ..Stat::default()
    }
}

fn connect_request() -> ConnectRequest<'static> {
    ConnectRequest {
        protocol_version: 0,
        zxid_seen: Zxid::ZERO,
        timeout_ms: 10_000,
        session: SessionId::NONE,
        password: Some(&[0; 16]),
        read_only: Some(false),
    }
}

fn connect_response() -> ConnectResponse {
    ConnectResponse {
        timeout_ms: 10_000,
        session: SessionId(0x0100_0031_268d_0000),
        password: PASSWORD,
        read_only: Some(false),
    }
}

fn create_ttl() -> Request<'static> {
    Request::Create {
        op: OpCode::CreateTtl,
        path: "/t",
        data: Some(b""),
        acl: Some(ACL_OPEN),
        flags: CreateMode::PersistentTtl as i32,
        ttl_ms: 1000,
    }
}

/// The captured session, played through the client: each request encodes to the captured bytes, each answer decodes.
#[test]
fn client_says_and_understands_the_captured_session() {
    let multi = [
        Request::create("/b", b"", CreateMode::Persistent),
        Request::Check { path: "/a", version: Some(9) },
        Request::Delete { path: "/a", version: None },
    ];
    let failed = |err| MultiResult::Failed { err };
    let identities = [("ip", "127.0.0.1"), ("digest", "u")];
    let identities = identities.map(|(scheme, user)| (scheme.to_owned(), user.to_owned()));
    let watched = Request::Exists { path: "/a", watch: true };
    let set = Request::SetData { path: "/a", data: Some(b"y"), version: Some(0) };
    // Request, its bytes, the frames that answer it, then xid, zxid, err and record of its reply.
    #[rustfmt::skip]
    let exchanges = [
        (Request::create("/a", b"x", CreateMode::Persistent), CREATE, vec![CREATED], (1, 2, 0, Response::Path(Some("/a".into())))),
        (watched, EXISTS, vec![EXISTS_ANSWER], (2, 2, 0, Response::Stat(stat(2, 0x1a1_fa15_5f47, 0)))),
        (set, SET_DATA, vec![CHANGED, SET_DATA_ANSWER], (3, 3, 0, Response::Stat(stat(3, 0x1a1_fa15_5f72, 1)))),
        (Request::GetData { path: "/n", watch: false }, GET_MISSING, vec![GET_MISSING_ANSWER], (4, 3, -101, Response::None)),
        (Request::Multi(&multi), MULTI, vec![MULTI_ANSWER], (5, 4, 0, Response::Multi(vec![failed(0), failed(-103), failed(-2)]))),
        (Request::AddWatch { path: "/a", mode: WatchMode::PersistentRecursive }, ADD_WATCH, vec![ADD_WATCH_ANSWER], (6, 4, 0, Response::AddWatch { err: 0 })),
        (Request::Ping, PING, vec![PING_ANSWER], (-2, 4, 0, Response::None)),
        (Request::Auth { scheme: "digest", auth: Some(b"u:p") }, AUTH, vec![AUTH_ANSWER], (-4, 0, 0, Response::None)),
        (Request::WhoAmI, WHO_AM_I, vec![WHO_AM_I_ANSWER], (7, 4, 0, Response::Identities(identities.to_vec()))),
        (create_ttl(), CREATE_TTL, vec![CREATE_TTL_ANSWER], (8, 5, -6, Response::None)),
        (Request::CloseSession, CLOSE, vec![CLOSE_ANSWER], (9, 6, 0, Response::None)),
    ];

    let mut bytes = Vec::new();
    connect_request().encode_frame(&mut bytes);
    assert_eq!(bytes, hex(CONNECT));
    let mut conversation = Conversation::new(Zxid::ZERO);
    conversation.received(&hex(CONNECTED));
    assert_eq!(conversation.next_incoming(), Ok(Some(Incoming::Connected(connect_response()))));

    for (request, sent, answers, (xid, zxid, err, response)) in exchanges {
        let mut bytes = Vec::new();
        conversation.submit(&request, &mut bytes);
        assert_eq!(bytes, hex(sent), "{request:?}");
        for answer in &answers {
            conversation.received(&hex(answer));
        }
        if answers.len() == 2 {
            let event =
                Event { zxid: Zxid(3), kind: EventType::NodeDataChanged, state: 3, path: "/a".to_owned() };
            assert_eq!(conversation.next_incoming(), Ok(Some(Incoming::Message(Message::Event(event)))));
        }
        let reply = Reply { xid, zxid: Zxid(zxid), err, response };
        assert_eq!(
            conversation.next_incoming(),
            Ok(Some(Incoming::Message(Message::Reply(reply)))),
            "{request:?}"
        );
    }
    assert_eq!(conversation.next_incoming(), Ok(None));
    assert_eq!(conversation.zxid_seen(), Zxid(6));
}

/// Skips length and header; checks the header.
fn body(frame: &[u8], xid: i32, op: OpCode) -> Reader<'_> {
    let mut reader = Reader::new(&frame[4..]);
    assert_eq!(RequestHeader::decode(&mut reader), Ok(RequestHeader { xid, op: op.number() }));
    reader
}

#[test]
fn server_understands_the_captured_requests() {
    assert_eq!(ConnectRequest::decode(&hex(CONNECT)[4..]), Ok(connect_request()));

    let frame = hex(CREATE);
    let mut reader = body(&frame, 1, OpCode::Create);
    let create = CreateRequest::decode(&mut reader, OpCode::Create).unwrap();
    assert_eq!((create.path.as_deref(), create.data, create.flags), (Some("/a"), Some(&b"x"[..]), 0));
    assert_eq!(create.acl.unwrap().entries().collect::<Vec<_>>(), ACL_OPEN);
    assert!(reader.is_empty());

    let frame = hex(CREATE_TTL);
    let mut reader = body(&frame, 8, OpCode::CreateTtl);
    let create = CreateRequest::decode(&mut reader, OpCode::CreateTtl).unwrap();
    assert_eq!((create.flags, create.ttl_ms), (CreateMode::PersistentTtl as i32, Some(1000)));
    assert!(reader.is_empty());

    let frame = hex(EXISTS);
    let mut reader = body(&frame, 2, OpCode::Exists);
    assert_eq!(ReadRequest::decode(&mut reader), Ok(ReadRequest { path: Some("/a".into()), watch: true }));
    assert!(reader.is_empty());

    let frame = hex(SET_DATA);
    let mut reader = body(&frame, 3, OpCode::SetData);
    let set = SetDataRequest { path: Some("/a".into()), data: Some(b"y"), version: Some(0) };
    assert_eq!(SetDataRequest::decode(&mut reader), Ok(set));
    assert!(reader.is_empty());
}

#[test]
fn server_says_the_captured_answers() {
    let mut out = Vec::new();
    connect_response().encode_frame(&mut out);
    assert_eq!(out, hex(CONNECTED));

    out.clear();
    let frame = Frame::begin_reply(&mut out, 2, Zxid(2), ErrorCode::Ok);
    stat(2, 0x1a1_fa15_5f47, 0).encode(&mut out);
    frame.end(&mut out);
    assert_eq!(out, hex(EXISTS_ANSWER));

    out.clear();
    put_notification(&mut out, Zxid(3), EventType::NodeDataChanged, "/a");
    assert_eq!(out, hex(CHANGED));

    out.clear();
    let frame = Frame::begin_reply(&mut out, 4, Zxid(3), ErrorCode::NoNode);
    frame.end(&mut out);
    assert_eq!(out, hex(GET_MISSING_ANSWER));

    out.clear();
    let frame = Frame::begin_reply(&mut out, 5, Zxid(4), ErrorCode::Ok);
    for err in [ErrorCode::Ok, ErrorCode::BadVersion, ErrorCode::RuntimeInconsistency] {
        MultiHeader { op: -1, done: false, err: err.code() }.encode(&mut out);
        out.extend_from_slice(&err.code().to_be_bytes());
    }
    MultiHeader::END.encode(&mut out);
    frame.end(&mut out);
    assert_eq!(out, hex(MULTI_ANSWER));
}
