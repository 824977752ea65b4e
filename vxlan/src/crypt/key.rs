//! The key of one direction between two nodes, and the secrets that it is made of.

use std::{fmt, net::IpAddr};

use packet::Vni;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};

use super::{BACK, FRONT, SALT, Secret};

/// A secret, ready to derive keys from.
#[derive(Debug)]
pub(super) struct Source(hkdf::Prk);

impl Source {
    pub(super) fn new(secret: &Secret) -> Self {
        Self(hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&secret.0))
    }

    /// The key for datagrams of `session` to `to`; an IPv4 address counts as its IPv4-mapped one.
    pub(super) fn key(&self, vni: Vni, epoch: u32, session: u64, to: IpAddr) -> Option<Key> {
        let to = match to {
            IpAddr::V4(to) => to.to_ipv6_mapped(),
            IpAddr::V6(to) => to,
        };
        let parts: [&[u8]; 4] = [&vni.get().to_be_bytes(), &epoch.to_be_bytes(), &session.to_be_bytes(), &to.octets()];
        // More output than the hash allows is the only error.
        self.0.expand(&parts, &AES_256_GCM).ok().map(|key| Key(LessSafeKey::new(UnboundKey::from(key))))
    }
}

/// See the module. Its owner sees to it that no counter is used twice.
pub(super) struct Key(LessSafeKey);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Encrypts what lies between `front` and room for the tag, and writes both. False when the cipher refuses the length.
    pub(super) fn seal(&self, counter: u64, front: &[u8; FRONT], datagram: &mut [u8]) -> bool {
        let Some((head, rest)) = datagram.split_first_chunk_mut::<FRONT>() else { return false };
        let Some((inner, tail)) = rest.split_last_chunk_mut::<BACK>() else { return false };
        let Ok(tag) = self.0.seal_in_place_separate_tag(nonce(counter), Aad::from(*front), inner) else { return false };
        *head = *front;
        tail.copy_from_slice(tag.as_ref());
        true
    }

    /// Decrypts the inner frame in place. False when anything in the datagram is not as it was sealed; the frame is rubbish then.
    pub(super) fn open(&self, counter: u64, front: &[u8; FRONT], datagram: &mut [u8]) -> bool {
        let sealed = datagram.get_mut(FRONT..);
        sealed.is_some_and(|sealed| self.0.open_in_place(nonce(counter), Aad::from(*front), sealed).is_ok())
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
