use super::*;

fn gzip(body: &[u8]) -> Vec<u8> {
    encode(body).unwrap()
}

fn decoded(body: &[u8], coding: Coding, limit: usize) -> Result<Vec<u8>> {
    unpack(body, coding, limit, usize::MAX, |_| Ok(())).map_err(|stop| stop.into_error(limit))
}

#[test]
fn any_header_value_is_read() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        asks_for_gzip(bytes);
        Coding::parse(bytes);
    });
}

#[test]
fn what_was_encoded_is_decoded_within_the_limit() {
    let body = vec![7u8; 1 << 20];
    let packed = gzip(&body);
    assert!(packed.len() < 20_000);
    assert_eq!(decoded(&packed, Coding::Gzip, 1 << 20).unwrap(), body);
    let error = decoded(&packed, Coding::Gzip, (1 << 20) - 1).unwrap_err();
    assert_eq!(error.code, Code::PayloadTooLarge);
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(b"abc").unwrap();
    assert_eq!(decoded(&zlib.finish().unwrap(), Coding::Deflate, 3).unwrap(), b"abc");
}

#[test]
fn every_step_is_counted_before_it_is_made() {
    let packed = gzip(&vec![7u8; 4 * STEP]);
    let mut left = 2;
    let count = |bytes| {
        assert_eq!(bytes, STEP);
        left -= 1;
        if left < 0 { Err(Error::new(Code::Overloaded, "enough")) } else { Ok(()) }
    };
    let refused = unpack(&packed, Coding::Gzip, usize::MAX - 1, usize::MAX, count).unwrap_err();
    assert_eq!((refused.into_error(0).code, left), (Code::Overloaded, -1));
}

#[test]
fn gzip_may_have_several_members() {
    let packed = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(decoded(&packed, Coding::Gzip, 100).unwrap(), b"one two");
}

#[test]
fn zeros_behind_the_last_member_are_padding() {
    let packed = gzip(b"some words");
    for zeros in [1, 511, 3 * STEP] {
        let padded = [packed.clone(), vec![0; zeros]].concat();
        assert_eq!(decoded(&padded, Coding::Gzip, 100).unwrap(), b"some words");
        let error = decoded(&[padded, vec![1]].concat(), Coding::Gzip, 100).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
    }
}

#[test]
fn a_member_that_ends_with_a_step_is_followed_like_any_other() {
    // A stored member has its bytes, 5 for each block of at most 65 535, and 18 around them.
    let stored = |bytes: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(&vec![b' '; bytes]).unwrap();
        encoder.finish().unwrap()
    };
    let second = gzip(b"second");
    for bytes in STEP - 64..STEP + 8 {
        let first = stored(bytes);
        let both = [first.clone(), second.clone()].concat();
        assert!(decoded(&both, Coding::Gzip, usize::MAX).unwrap().ends_with(b" second"), "{bytes}");
        for behind in [&b"GARBAGE"[..], b"\0\0G", &[&[0; 3 * STEP][..], b"G"].concat()] {
            let body = [&first[..], behind].concat();
            let error = decoded(&body, Coding::Gzip, usize::MAX).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{bytes}");
        }
    }
}

#[test]
fn more_members_than_bytes_to_show_for_them_are_refused() {
    let empty = gzip(b"");
    let several = [gzip(b"words"), empty.repeat(100)].concat();
    assert_eq!(decoded(&several, Coding::Gzip, 100).unwrap(), b"words");
    let error = decoded(&empty.repeat(100_000), Coding::Gzip, 100).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    // Lines that were flushed one by one, and blocks as bgzip makes them, however many.
    let lines = gzip(&[7; 80]).repeat(20_000);
    assert_eq!(decoded(&lines, Coding::Gzip, usize::MAX).unwrap().len(), 20_000 * 80);
    let blocks = gzip(&[7; 4096]).repeat(3_000);
    assert_eq!(decoded(&blocks, Coding::Gzip, usize::MAX).unwrap().len(), 3_000 * 4096);
}

#[test]
fn what_takes_more_than_a_step_is_left_to_others() {
    // Blocks of deflate that are stored and empty, members without a byte, and a body that grows a thousandfold.
    let nothing = [vec![0x78, 0x01], [0, 0, 0, 0xff, 0xff].repeat(STEP)].concat();
    let members = gzip(b"").repeat(STEP / MEMBER_COST + 2);
    let (grows, fits) = (gzip(&vec![7; STEP + 1]), gzip(&vec![7; STEP]));
    let inline = |body: &[u8], coding| unpack(body, coding, STEP, STEP, |_| Ok(()));
    assert!(matches!(inline(&nothing, Coding::Deflate), Err(DecodeStop::Unfinished)));
    assert!(matches!(inline(&members, Coding::Gzip), Err(DecodeStop::Unfinished)));
    assert!(matches!(inline(&grows, Coding::Gzip), Err(DecodeStop::AtLimit)));
    assert_eq!(inline(&fits, Coding::Gzip).unwrap().len(), STEP);
}

#[test]
fn what_is_not_of_the_coding_or_cut_off_is_refused() {
    let packed = gzip(b"some words");
    for broken in [&b"plain"[..], b"", &packed[..packed.len() - 3]] {
        let error = decoded(broken, Coding::Gzip, 100).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
    }
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(b"abc").unwrap();
    let followed = [zlib.finish().unwrap(), vec![0]].concat();
    assert_eq!(decoded(&followed, Coding::Deflate, 3).unwrap_err().code, Code::InvalidArgument);
}

#[test]
fn gzip_is_used_when_it_is_asked_for() {
    for header in ["gzip", "deflate, gzip;q=0.5", "GZIP;q=1.0", "br , x-gzip"] {
        assert!(asks_for_gzip(header.as_bytes()), "{header}");
    }
    for header in ["", "*", "identity", "gzip;q=0", "gzip;q=0.000", "gzipx", "deflate"] {
        assert!(!asks_for_gzip(header.as_bytes()), "{header}");
    }
}
