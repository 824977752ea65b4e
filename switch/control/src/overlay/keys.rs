//! The keys of an encrypted overlay as a file has them: one a line, `[EPOCH] KEY`, the key in 64 hexadecimal digits, the
//! epoch 1 when it is not said. The first line is sent with; a second one is accepted too, while all nodes change over.

use vxlan::crypt::{EPOCHS_MOST, Secret};

/// Epochs with their secrets, the one to send with first.
///
/// # Errors
/// What is wrong in which line; never what the line says.
pub fn parse_keys(text: &str) -> Result<Vec<(u32, Secret)>, String> {
    let mut keys: Vec<(u32, Secret)> = Vec::new();
    let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.split('#').next().unwrap_or_default()));
    for (number, line) in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let (epoch, key) = match words[..] {
            [] => continue,
            [key] => (1, key),
            [epoch, key] => (epoch.parse().map_err(|_| format!("line {number}: the epoch is not a number from 0 to {}", u32::MAX))?, key),
            _ => return Err(format!("line {number}: want `[EPOCH] KEY`")),
        };
        let secret = parse_secret(key).map_err(|what| format!("line {number}: the key {what}, want 64 hexadecimal digits (32 bytes)"))?;
        if keys.iter().any(|(known, _)| *known == epoch) {
            return Err(format!("line {number}: epoch {epoch} is there twice; say `EPOCH KEY`"));
        }
        keys.push((epoch, secret));
    }
    match keys.len() {
        0 => Err("it has no key".into()),
        count if count > EPOCHS_MOST => Err(format!("it has {count} keys, at most {EPOCHS_MOST} are used at once")),
        _ => Ok(keys),
    }
}

/// 32 bytes in 64 hexadecimal digits.
///
/// # Errors
/// What it has instead, never what it says.
pub fn parse_secret(text: &str) -> Result<Secret, String> {
    if text.bytes().any(|byte| !byte.is_ascii_hexdigit()) {
        return Err("has other characters".into());
    }
    let mut secret = [0; 32];
    if text.len() != 2 * secret.len() {
        return Err(format!("has {} digits", text.len()));
    }
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| "has other characters".to_owned())?;
    }
    if secret == [0; 32] { Err("is all zeros".into()) } else { Ok(Secret(secret)) }
}

/// As [`parse_secret`] reads it.
#[must_use]
pub fn show_secret(secret: &Secret) -> String {
    secret.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    #[test]
    fn the_first_is_sent_with() {
        let mut first = [0; 32];
        first.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number);
        let second = "ff".repeat(32);
        assert_eq!(parse_keys(KEY).unwrap(), [(1, Secret(first))]);
        let both = parse_keys(&format!("# keys of wide\n\n 8  {second} # new\n7\t{KEY}\n")).unwrap();
        assert_eq!(both, [(8, Secret([0xff; 32])), (7, Secret(first))]);
    }

    #[test]
    fn what_is_wrong_is_named_and_not_shown() {
        let short = &KEY[..62];
        for (text, culprit) in [
            (String::new(), "no key"),
            ("# nothing".into(), "no key"),
            (short.into(), "line 1: the key has 62 digits"),
            (format!("\n{KEY}0"), "line 2: the key has 65 digits"),
            (KEY.replace('1', "x"), "other characters"),
            ("é".repeat(32), "other characters"),
            ("0".repeat(64), "all zeros"),
            (format!("one {KEY}"), "line 1: the epoch"),
            (format!("4294967296 {KEY}"), "line 1: the epoch"),
            (format!("1 2 {KEY}"), "line 1: want"),
            (format!("{KEY}\n{KEY}"), "line 2: epoch 1 is there twice"),
            (format!("1 {KEY}\n2 {KEY}\n3 {KEY}"), "3 keys"),
        ] {
            let error = parse_keys(&text).unwrap_err();
            assert!(error.contains(culprit) && !error.contains("0a0b0c"), "{culprit}: {error}");
        }
    }
}
