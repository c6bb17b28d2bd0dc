use super::*;

fn one(text: &str) -> Result<Vec<u8>> {
    let mut table = StringTable::default();
    decode_json(format!("[{text}]").as_bytes(), &Shape::new(&[1])?, &mut table, "X")?;
    Ok(table.view().get(0).unwrap().to_vec())
}

#[test]
fn escapes_become_their_characters() {
    assert_eq!(one(r#""a\"\\\/\b\f\n\r\t""#).unwrap(), b"a\"\\/\x08\x0c\n\r\t");
    assert_eq!(one(r#""\u00e9\u20ac\ud83d\ude00\u0000""#).unwrap(), "é€😀\0".as_bytes());
    assert_eq!(one("\"h\u{e9}\"").unwrap(), "hé".as_bytes());
}

#[test]
fn what_is_no_string_is_refused_with_its_element() {
    for (text, fragment) in [
        (r#""\ud83d""#, "surrogate"),
        (r#""\ude00""#, "surrogate"),
        (r#""\ud83d\u0041""#, "surrogate"),
        (r#""\x41""#, "escape"),
        (r#""\u12g4""#, "escape"),
        ("\"a\nb\"", "control"),
        ("1", "element 0 is 1"),
        ("null", "element 0 is null"),
    ] {
        let error = one(text).unwrap_err();
        assert!(error.message.contains(fragment) && error.message.contains("\"X\""), "{text}: {error}");
    }
}

#[test]
fn the_binary_form_must_fill_its_blob() {
    let mut table = StringTable::default();
    let blob = b"\x02\0\0\0ab\0\0\0\0";
    decode_binary(blob, 2, &mut table, "X").unwrap();
    assert_eq!(table.view().iter().collect::<Vec<_>>(), [&b"ab"[..], b""]);
    let mut back = Vec::new();
    table.view().write_binary(&mut back).unwrap();
    assert_eq!(back, blob);
    assert_eq!(table.view().binary_size(), blob.len());
    for (blob, count) in
        [(&blob[..], 1), (&blob[..], 3), (b"\xff\xff\xff\xff", 1), (b"\x01\0\0", 1), (b"x", 0)]
    {
        assert!(decode_binary(blob, count, &mut table, "X").is_err(), "{blob:?} {count}");
    }
}

#[test]
fn starts_that_do_not_ascend_are_refused() {
    assert!(StringTableView::new(b"abc", &[0, 2]).is_ok());
    for starts in [&[1][..], &[0, 4], &[0, 2, 1], &[]] {
        assert!(StringTableView::new(b"abc", starts).is_err(), "{starts:?}");
    }
}
