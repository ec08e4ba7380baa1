//! The one message of a unary gRPC call's body: a flag, its length, itself.

use prost::Message;

/// The message; `None` if the body is not one whole message in clear, which is then nobody's to look into.
pub(super) fn decode<M: Message + Default>(body: &[u8]) -> Option<M> {
    let ([flag, length @ ..], message) = body.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if *flag != 0 {
        tracing::warn!("a call of the image service is compressed: its credentials are not used");
        return None;
    }
    M::decode(message.get(..length).filter(|_| message.len() == length)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::cri::{ImageSpec, RemoveImageRequest};

    use super::*;

    fn framed(message: &RemoveImageRequest) -> Vec<u8> {
        let message = message.encode_to_vec();
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
    }

    #[test]
    fn one_whole_message_in_clear_is_read() {
        let message = RemoveImageRequest { image: Some(ImageSpec { image: "a".into() }) };
        let body = framed(&message);
        assert_eq!(decode::<RemoveImageRequest>(&body), Some(message));
        let compressed = [&[1], &body[1..]].concat();
        let longer = [&body[..], &[0]].concat();
        for other in [&compressed[..], &longer, &body[..body.len() - 1], &[], &[0; 4]] {
            assert_eq!(decode::<RemoveImageRequest>(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_left_alone(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode::<proto::cri::PullImageRequest>(&body);
        }
    }
}
