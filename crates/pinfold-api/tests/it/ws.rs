//! The codec alone, against hostile and broken peers.

use pinfold_api::ws::{
    MAX_MESSAGE_BYTES, Message, Opcode, Receiver, Role, Sender, WsError, decode_header,
    encode_header,
};
use proptest::prelude::*;

async fn receive(bytes: &[u8], role: Role) -> Result<Message, WsError> {
    let read = std::io::Cursor::new(bytes.to_vec());
    Receiver::new(Box::pin(read), role, &[]).next().await
}

#[tokio::test]
async fn frames_that_break_the_rules_are_errors() {
    let table: &[(&str, &[u8])] = &[
        ("unmasked from a client", &[0x82, 1, 0]),
        ("reserved bit", &[0xc2, 0x80, 0, 0, 0, 0]),
        ("unknown opcode", &[0x83, 0x80, 0, 0, 0, 0]),
        ("fragmented ping", &[0x09, 0x80, 0, 0, 0, 0]),
        ("long ping", &[0x89, 0xfe, 0, 126]),
        ("continuation of nothing", &[0x80, 0x80, 0, 0, 0, 0]),
        ("close of one byte", &[0x88, 0x81, 0, 0, 0, 0, 3]),
        ("close that is not UTF-8", &[0x88, 0x83, 0, 0, 0, 0, 3, 232, 0xff]),
        ("text that is not UTF-8", &[0x81, 0x81, 0, 0, 0, 0, 0xff]),
        ("a message inside a message", &[0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0]),
    ];
    for (what, bytes) in table {
        let result = receive(bytes, Role::Server).await;
        assert!(matches!(result, Err(WsError::Protocol(_))), "{what}: {result:?}");
    }
    // A length of 2^63 is refused before a byte is allocated.
    let mut giant = vec![0x82, 0xff];
    giant.extend_from_slice(&(1_u64 << 63).to_be_bytes());
    assert!(matches!(receive(&giant, Role::Server).await, Err(WsError::TooLarge)));
    assert!(matches!(receive(&[0x82], Role::Server).await, Err(WsError::Ended)));
}

#[tokio::test]
async fn fragments_add_up_to_the_limit_and_no_further() {
    let mut bytes = Vec::new();
    let piece = vec![0_u8; 100_000];
    for place in 0..4 {
        // First fragment binary, then continuations, none final.
        bytes.push(if place == 0 { 0x02 } else { 0x00 });
        bytes.extend_from_slice(&[127]);
        bytes.extend_from_slice(&(piece.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&piece);
    }
    assert!(matches!(receive(&bytes, Role::Client).await, Err(WsError::TooLarge)));
    // A ping may come between fragments, which are joined.
    let joined = [0x02, 1, b'a', 0x89, 0, 0x80, 1, b'b'];
    let mut receiver = Receiver::new(Box::pin(std::io::Cursor::new(joined)), Role::Client, &[]);
    assert!(matches!(receiver.next().await, Ok(Message::Ping(_))));
    let Ok(Message::Binary(whole)) = receiver.next().await else { panic!("no message") };
    assert_eq!(whole.as_ref(), b"ab");
}

#[tokio::test]
async fn both_roles_understand_each_other() {
    for (from, to) in [(Role::Client, Role::Server), (Role::Server, Role::Client)] {
        let (left, right) = tokio::io::duplex(1 << 10);
        let sending = tokio::spawn(async move {
            let mut sender = Sender::new(Box::pin(left), from);
            sender.text("é".into()).await.expect("text");
            sender.binary(Some(1), vec![9; 600_000].into()).await.expect("binary");
            sender.close(1000, &"é".repeat(100)).await.expect("close");
        });
        let mut receiver = Receiver::new(Box::pin(right), to, &[]);
        assert_eq!(receiver.next().await.expect("text"), Message::Text("é".into()));
        let mut total = 0;
        let reason = loop {
            match receiver.next().await.expect("a message") {
                Message::Binary(data) => {
                    assert!(data.len() <= MAX_MESSAGE_BYTES && data[0] == 1);
                    total += data.len() - 1;
                }
                Message::Close(Some(1000), reason) => break reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(total, 600_000);
        assert!(reason.len() <= 123 && reason.chars().all(|c| c == 'é'));
        sending.await.expect("sent");
    }
}

proptest! {
    #[test]
    fn headers_round_trip(length in 0_usize..=MAX_MESSAGE_BYTES, mask: Option<[u8; 4]>) {
        let mut out = Vec::new();
        encode_header(Opcode::Binary, length, mask, &mut out);
        let role = if mask.is_some() { Role::Server } else { Role::Client };
        for cut in 0..out.len() {
            prop_assert!(matches!(decode_header(&out[..cut], role, MAX_MESSAGE_BYTES), Ok(None)));
        }
        let (header, used) = decode_header(&out, role, MAX_MESSAGE_BYTES)
            .expect("good")
            .expect("whole");
        prop_assert_eq!((header.length, header.mask, used), (length, mask, out.len()));
    }

    #[test]
    fn wild_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for role in [Role::Client, Role::Server] {
            let mut receiver =
                Receiver::new(Box::pin(std::io::Cursor::new(bytes.clone())), role, &[]);
            runtime.block_on(async { while receiver.next().await.is_ok() {} });
        }
    }
}
