//! Every form of address, and what is no address.

use super::*;

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn multiaddresses_and_urls_name_the_same_places() {
    for (text, shown) in [
        ("/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001"),
        ("/ip4/0.0.0.0/tcp/5001", "http://0.0.0.0:5001"),
        (" /ip4/127.0.0.1/tcp/5001\n", "http://127.0.0.1:5001"),
        ("/ip4/127.0.0.1", "http://127.0.0.1"),
        ("/ip6/::1/tcp/5001", "http://[::1]:5001"),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/5001", "http://[fe80::1%eth0]:5001"),
        ("/dns/ipfs.example/tcp/5001", "http://ipfs.example:5001"),
        ("/dns4/ipfs.example/tcp/5001/http", "http://ipfs.example:5001"),
        ("/dns6/ipfs.example/tcp/5001", "http://ipfs.example:5001"),
        ("/dns/ipfs.example/tcp/443/https", "https://ipfs.example"),
        ("/dns/ipfs.example/tcp/5001/https", "https://ipfs.example:5001"),
        ("/dns/ipfs.example/tls/http", "https://ipfs.example"),
        ("/dns/ipfs.example/tcp/8443/tls/http", "https://ipfs.example:8443"),
        ("/dns/ipfs.example/tcp/8443/tls/sni/ipfs.example/http", "https://ipfs.example:8443"),
        ("/ip4/127.0.0.1/tcp/5001/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5", "http://127.0.0.1:5001"),
        ("/unix/run/ipfs.sock", "/unix/run/ipfs.sock"),
        ("/unix//run/ipfs.sock", "/unix/run/ipfs.sock"),
        ("/unix/%2Frun%2Fipfs.sock", "/unix/run/ipfs.sock"),
        ("http://127.0.0.1:5001", "http://127.0.0.1:5001"),
        ("http://127.0.0.1:5001/api/v0/", "http://127.0.0.1:5001"),
        ("https://proxy.example/ipfs/", "https://proxy.example/ipfs"),
        ("https://user:secret@ipfs.example:5001/", "https://ipfs.example:5001"),
    ] {
        assert_eq!(endpoint(text).to_string(), shown, "{text}");
    }
    assert_eq!(endpoint("/dns4/a/tcp/1").route, Route::Family(4));
    assert_eq!(endpoint("/unix/run/ipfs.sock").route, Route::Unix("/run/ipfs.sock".into()));
}

#[test]
fn what_is_no_address_is_refused_and_not_repeated() {
    for text in [
        "",
        "x",
        "127.0.0.1:5001",
        "/",
        "/ip4",
        "/ip4/x/tcp/1",
        "/ip4/127.0.0.1/tcp",
        "/ip4/127.0.0.1/tcp/99999",
        "/ip4/127.0.0.1/udp/5001",
        "/ip4/127.0.0.1/tcp/5001/ws",
        "/dnsaddr/ipfs.example",
        "/dns/a@b/tcp/1",
        "/dns/a%2fb/tcp/1",
        "/dns/a:secret@b/tcp/1",
        "/dns/a?b/tcp/1",
        "/unix/",
        "ftp://127.0.0.1",
        "http://",
        "http://a:secret@",
        "http://a/?secret",
        "http://a/#secret",
        "http://a\u{1b}[2J/",
    ] {
        let error = text.parse::<Endpoint>().expect_err(text).to_string();
        assert!(!error.contains("secret") && !error.contains('\u{1b}'), "{text}: {error}");
    }
    assert!(matches!("/ip4/1.2.3.4/udp/1".parse::<Endpoint>(), Err(AddressError::NotTcp { .. })));
    assert!(matches!("/dnsaddr/a/tcp/1".parse::<Endpoint>(), Err(AddressError::NoHost { .. })));
    assert!("http://a/".to_owned().repeat(1000).parse::<Endpoint>().is_err());
}

#[test]
fn credentials_are_read_and_never_shown() {
    let url = endpoint("https://user:p%40ss:%20w@ipfs.example/");
    assert_eq!(url.credentials, Some(Credentials::basic("user", "p@ss: w").expect("well-formed")));
    assert_eq!("basic:user:p@ss: w".parse(), Ok(Credentials::basic("user", "p@ss: w").expect("well-formed")));
    assert_eq!("bearer:token\n".parse(), Ok(Credentials::bearer("token").expect("well-formed")));
    let shown = format!("{url} {url:?} {:?}", Place::At(url.clone()));
    assert!(!shown.contains("ss") || !shown.contains("%40"), "{shown}");
    assert!(!shown.contains("p@") && !shown.contains("user"), "{shown}");
    for text in ["", "token", "bearer:", "bearer:a b", "basic:user", "digest:a:b", "basic:a\u{7}:b"] {
        let error = text.parse::<Credentials>().expect_err(text);
        assert_eq!(error, AddressError::Credentials);
    }
}

#[test]
fn what_others_could_read_is_known() {
    for (text, open) in [
        ("/ip4/127.0.0.1/tcp/1", false),
        ("/ip6/::1/tcp/1", false),
        ("http://localhost:1", false),
        ("/unix/a/b", false),
        ("https://ipfs.example", false),
        ("/ip4/192.0.2.7/tcp/1", true),
        ("http://ipfs.example", true),
    ] {
        assert_eq!(endpoint(text).is_open(), open, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,60}|/(ip4|ip6|dns|unix|ip6zone)[a-z0-9:/.%@?#]{0,60}|https?://[a-z0-9:/.%@?#\\[\\]]{0,40}") {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            let _ = endpoint.to_string();
        }
    }
}
