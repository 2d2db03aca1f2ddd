use proptest::prelude::*;

use super::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn whole(bytes: &[u8]) -> Header {
    read(bytes).unwrap().unwrap()
}

#[test]
fn lines_of_version_1_are_read() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n\x16\x03";
    let header = whole(line);
    assert_eq!(header.length, line.len() - 2);
    assert_eq!(
        header.ends,
        Some(ends("192.0.2.1:56324", "198.51.100.2:443"))
    );
    let header = whole(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n");
    assert_eq!(header.ends, Some(ends("[2001:db8::1]:1", "[::1]:65535")));
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN a b c d\r\n",
        "PROXY UNKNOWN x\r\n",
    ] {
        assert_eq!(whole(line.as_bytes()).ends, None, "{line:?}");
    }
}

/// A header of version 2 with these fields behind its addresses.
fn with_fields(family: u8, fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(fields.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[PROXY, family], &length, fields].concat()
}

#[test]
fn the_name_is_found_among_other_fields_and_only_there() {
    let fields = b"\x04\0\x02ab\x02\0\x05A.b.c\x05\0\0";
    let header = whole(&with_fields(UNSPECIFIED, fields));
    assert_eq!(
        (header.ends, header.authority.as_deref()),
        (None, Some("a.b.c"))
    );
    let addresses = write(&ends("192.0.2.1:1", "192.0.2.2:2")).split_off(HEADER);
    let header = whole(&with_fields(
        TCP_OVER_IPV4,
        &[&addresses, &fields[..]].concat(),
    ));
    assert_eq!(header.authority.as_deref(), Some("a.b.c"));
    assert!(header.ends.is_some());
    for broken in [
        &b"\x02\0\x05A.b."[..],
        b"\x02\0",
        b"\x02\0\x01\xff",
        b"\x01\0\x01\x02",
        b"",
    ] {
        assert_eq!(
            whole(&with_fields(UNSPECIFIED, broken)).authority,
            None,
            "{broken:?}"
        );
    }
}

#[test]
fn what_only_looks_like_a_line_is_refused() {
    let long = format!("PROXY UNKNOWN {}", "x".repeat(LONGEST_LINE));
    for line in [
        "GET / HTTP/1.1\r\n",
        "PROXY\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.1 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.1 +1 2\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.1 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.1 1 2\r\n",
        &long,
    ] {
        assert_eq!(read(line.as_bytes()), Err(NoHeader), "{line:?}");
    }
}

#[test]
fn a_load_balancer_that_speaks_for_itself_tells_nothing() {
    let mut header = write(&ends("192.0.2.1:1", "192.0.2.2:2"));
    header[12] = LOCAL;
    assert_eq!(whole(&header).ends, None);
    let unspecified = [&SIGNATURE[..], &[PROXY, 0, 0, 0]].concat();
    assert_eq!(whole(&unspecified).ends, None);
}

#[test]
fn what_follows_the_addresses_is_passed_over() {
    let mut header = write(&ends("192.0.2.1:1", "192.0.2.2:2"));
    header[15] += 5;
    header.extend([0xea, 0, 2, 7, 7]);
    let read = whole(&[&header[..], b"\x16\x03\x01"].concat());
    assert_eq!(read.length, header.len());
    assert_eq!(read.ends, Some(ends("192.0.2.1:1", "192.0.2.2:2")));
}

#[test]
fn headers_of_version_2_that_are_none_are_refused() {
    let sound = write(&ends("192.0.2.1:1", "192.0.2.2:2"));
    let with = |at: usize, byte: u8| {
        let mut header = sound.clone();
        header[at] = byte;
        header
    };
    for header in [
        with(12, 0x31),
        with(12, 0x22),
        with(14, 0x10),
        with(15, 11),
        with(13, TCP_OVER_IPV6),
    ] {
        assert_eq!(read(&header), Err(NoHeader), "{header:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(v4 in any::<bool>(), source in any::<u128>(), destination in any::<u128>(), ports in any::<(u16, u16)>()) {
        let address = |number: u128| if v4 {
            IpAddr::from(u32::try_from(number >> 96).unwrap().to_be_bytes())
        } else {
            IpAddr::from(number.to_be_bytes())
        };
        let told = Ends {
            source: SocketAddr::new(address(source), ports.0),
            destination: SocketAddr::new(address(destination), ports.1),
        };
        let header = write(&told);
        prop_assert_eq!(whole(&header), Header { length: header.len(), ends: Some(told), authority: None });
        for end in 0..header.len() {
            prop_assert_eq!(read(&header[..end]), Ok(None));
        }
    }

    #[test]
    fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..3) {
        let start: &[u8] = [&b""[..], b"PROXY ", &SIGNATURE][usize::try_from(start).unwrap()];
        let all = [start, &bytes].concat();
        if let Ok(Some(header)) = read(&all) {
            prop_assert!(header.length <= all.len() && header.length <= LARGEST_HEADER);
        }
    }
}
