//! Who is admitted to what, and what it costs to find out.

use futures_util::FutureExt;

use super::*;

/// Few rounds: the tests are of what is done with a hash.
fn hash(password: &str) -> String {
    use argon2::password_hash::PasswordHasher;
    use argon2::{Algorithm, Argon2, Params, Version};
    let params = Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(password.as_bytes(), b"sixteen bytes!!!");
    hash.unwrap().to_string()
}

fn user(name: &str, tenants: &[&str], scopes: &[&str]) -> User {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    User {
        name: name.to_owned(),
        password_hash: hash(&format!("{name}'s")),
        token_sha256: vec![token_hash(&format!("{name}-token"))],
        certificate_names: vec![format!("{name}.example")],
        tenants: owned(tenants),
        scopes: owned(scopes),
    }
}

fn users() -> Vec<User> {
    vec![
        user("writer", &["a"], &["write"]),
        user("reader", &["a", "b"], &["read"]),
        user("ops", &["*"], &["write", "read", "admin"]),
        user("scraper", &[], &["metrics"]),
    ]
}

fn authenticator() -> Authenticator {
    let credentials = Credentials::new(users()).unwrap();
    Authenticator::new(credentials, false, &Registry::new()).unwrap()
}

fn headers(authorization: &str, tenant: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !authorization.is_empty() {
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
    }
    if !tenant.is_empty() {
        headers.insert(TENANT_HEADER, tenant.parse().unwrap());
    }
    headers
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

const QUERY: Route = Route::Api(crate::router::Endpoint::Query);

/// The tenant that comes of it, or the status and reason.
async fn admit(
    of: &Authenticator,
    route: Route,
    authorization: &str,
    tenant: &str,
) -> Result<String, (u16, &'static str)> {
    let mut headers = headers(authorization, tenant);
    let admitted = of.admit(&route, Tenancy::Header, &mut headers, None).await;
    assert!(
        !headers.contains_key(AUTHORIZATION),
        "nobody behind needs it"
    );
    admitted.map_err(|denied| (denied.status().as_u16(), denied.reason()))?;
    let tenant = headers.get(TENANT_HEADER);
    Ok(tenant.map_or_else(String::new, |value| value.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn passwords_tokens_and_certificates_name_an_identity() {
    let of = authenticator();
    for authorization in [
        basic("writer", "writer's"),
        "Bearer writer-token".to_owned(),
        "bearer  writer-token ".to_owned(),
    ] {
        assert_eq!(
            admit(&of, Route::Push, &authorization, "").await,
            Ok("a".into())
        );
    }
    let name = CertificateName("writer.example".into());
    let mut with_certificate = headers("", "");
    let admitted = of.admit(
        &Route::Push,
        Tenancy::Header,
        &mut with_certificate,
        Some(&name),
    );
    assert_eq!(admitted.await, Ok(()));
    assert_eq!(with_certificate[TENANT_HEADER], "a");
    let wrong = Err((401, "wrong"));
    for authorization in [
        basic("writer", "reader's"),
        basic("nobody", "writer's"),
        basic("writer", ""),
        "Bearer reader-toke".to_owned(),
        "Bearer".to_owned(),
        "Basic !".to_owned(),
        format!("Basic {}", STANDARD.encode("writer")),
        "Digest x".to_owned(),
        format!("Bearer {}", "x".repeat(HEADER_BYTES_MAX)),
    ] {
        assert_eq!(
            admit(&of, Route::Push, &authorization, "a").await,
            wrong,
            "{authorization}"
        );
    }
    assert_eq!(
        admit(&of, Route::Push, "", "a").await,
        Err((401, "missing"))
    );
    let other = CertificateName("other.example".into());
    let mut none = HeaderMap::new();
    let admitted = of.admit(&Route::Push, Tenancy::Header, &mut none, Some(&other));
    assert_eq!(admitted.await, Err(Denied::Wrong));
    let mut twice = headers("Bearer writer-token", "");
    twice.append(AUTHORIZATION, "Bearer ops-token".parse().unwrap());
    let admitted = of.admit(&Route::Push, Tenancy::Header, &mut twice, None);
    assert_eq!(admitted.await, Err(Denied::Wrong));
}

#[tokio::test]
async fn a_tenant_must_be_one_of_the_identitys() {
    let of = authenticator();
    let token = |name: &str| format!("Bearer {name}-token");
    for (name, tenant, wanted) in [
        ("reader", "a", Ok("a")),
        ("reader", "b", Ok("b")),
        ("reader", "b|a", Ok("b|a")),
        ("reader", "a|c", Err((403, "tenant"))),
        ("reader", "c", Err((403, "tenant"))),
        ("reader", "a|", Err((403, "tenant"))),
        ("reader", "A", Err((403, "tenant"))),
        ("reader", "", Err((400, "tenant"))),
        ("ops", "anybody", Ok("anybody")),
        ("ops", "", Err((400, "tenant"))),
    ] {
        let admitted = admit(&of, QUERY, &token(name), tenant).await;
        assert_eq!(admitted, wanted.map(str::to_owned), "{name} {tenant}");
    }
    // Two headers: each of them is held to the list.
    let mut two = headers(&token("reader"), "a");
    two.append(TENANT_HEADER, "c".parse().unwrap());
    let admitted = of.admit(&QUERY, Tenancy::Header, &mut two, None);
    assert_eq!(admitted.await, Err(Denied::Tenant("c".into())));
    // Without tenants everything is of `fake`.
    let mut none = headers(&token("reader"), "a");
    let admitted = of.admit(&QUERY, Tenancy::Off, &mut none, None);
    assert_eq!(admitted.await, Err(Denied::Tenant("fake".into())));
    let mut none = headers(&token("ops"), "");
    assert_eq!(
        of.admit(&QUERY, Tenancy::Off, &mut none, None).await,
        Ok(())
    );
}

#[tokio::test]
async fn each_route_has_its_scope() {
    let of = authenticator();
    let admitted = |route: Route, name: &'static str| {
        let of = &of;
        async move {
            let tenant = if route.is_of_tenant() && name != "scraper" {
                "a"
            } else {
                ""
            };
            let admitted = admit(of, route, &format!("Bearer {name}-token"), tenant).await;
            admitted.map(drop).map_err(|(status, _)| status)
        }
    };
    for (route, who) in [
        (Route::Push, ["writer", "ops"].as_slice()),
        (Route::Otlp, &["writer", "ops"]),
        (QUERY, &["reader", "ops"]),
        (Route::UserStats, &["reader", "ops"]),
        (Route::Metrics, &["scraper", "ops"]),
        (Route::Config, &["ops"]),
        (Route::RuntimeConfig, &["ops"]),
        (Route::Shutdown, &["ops"]),
        (Route::Flush, &["ops"]),
        (Route::Snapshot, &["ops"]),
        (Route::AllUserStats, &["ops"]),
        (Route::AllQueries, &["ops"]),
        (Route::Index, &["ops"]),
        (Route::DeleteTenant, &["ops"]),
        (Route::Api(Endpoint::DeleteSeries), &["ops"]),
        (Route::Api(Endpoint::CancelDelete), &["ops"]),
        (Route::Api(Endpoint::CleanTombstones), &["ops"]),
    ] {
        for name in ["writer", "reader", "ops", "scraper"] {
            let wanted = if who.contains(&name) {
                Ok(())
            } else {
                Err(403)
            };
            assert_eq!(
                admitted(route.clone(), name).await,
                wanted,
                "{route:?} {name}"
            );
        }
    }
    assert_eq!(admit(&of, Route::Ready, "", "").await, Ok(String::new()));
    assert_eq!(
        admit(&of, Route::Metrics, "", "").await,
        Err((401, "missing"))
    );
    let open = Authenticator::new(Credentials::new(users()).unwrap(), true, &Registry::new());
    assert_eq!(
        admit(&open.unwrap(), Route::Metrics, "", "").await,
        Ok(String::new())
    );
}

#[tokio::test]
async fn a_password_is_computed_once_and_forgotten_with_its_file() {
    let of = authenticator();
    let right = basic("writer", "writer's");
    for _ in 0..5 {
        assert!(admit(&of, Route::Push, &right, "").await.is_ok());
    }
    assert_eq!(of.computed.get(), 1);
    for _ in 0..2 {
        let wrong = basic("writer", "guessed");
        assert!(admit(&of, Route::Push, &wrong, "").await.is_err());
    }
    assert_eq!(of.computed.get(), 3, "what was wrong is not remembered");
    of.replace(Credentials::new(users()[1..].to_vec()).unwrap());
    assert_eq!(
        admit(&of, Route::Push, &right, "").await,
        Err((401, "wrong"))
    );
}

#[tokio::test]
async fn whoever_guesses_keeps_nobody_else_waiting() {
    let of = authenticator();
    // All places are taken: whatever is computed waits.
    let places = of
        .places
        .clone()
        .acquire_many_owned(AT_ONCE_MAX as u32)
        .await
        .unwrap();
    let guess = |name: &'static str, n: usize| {
        let authorization = basic(name, &n.to_string());
        let of = &of;
        async move { admit(of, Route::Push, &authorization, "").await }
    };
    let mut guesses: Vec<_> = (0..WAITING_OF_ONE_MAX)
        .map(|n| Box::pin(guess("writer", n)))
        .collect();
    for one in &mut guesses {
        assert!(one.now_or_never().is_none());
    }
    assert_eq!(guess("writer", 99).await, Err((503, "busy")));
    // A token needs no place, and neither does another name's turn in the queue.
    assert!(
        admit(&of, Route::Push, "Bearer writer-token", "")
            .await
            .is_ok()
    );
    let mut other = Box::pin(guess("reader", 1));
    assert!((&mut other).now_or_never().is_none());
    // Guesses that are given up give up their place in the queue.
    drop(guesses);
    drop(places);
    assert_eq!(other.await, Err((401, "wrong")));
    assert_eq!(guess("writer", 99).await, Err((401, "wrong")));
    assert!(of.waiting.lock().unwrap().is_empty());
}

#[test]
fn what_is_wrong_with_a_user_is_told_by_name_and_without_secrets() {
    let base = || user("u", &["a"], &["read"]);
    let with = |change: fn(&mut User)| {
        let mut user = base();
        change(&mut user);
        Credentials::new(vec![user])
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    for (told, wanted) in [
        (
            with(|user| user.name.clear()),
            "users[0]: a name is missing",
        ),
        (with(|user| user.name = "a:b".into()), "colon"),
        (
            with(|user| user.password_hash = "geheim".into()),
            "password_hash: a hash by argon2",
        ),
        (
            with(|user| user.token_sha256 = vec!["geheim".into()]),
            "64 hexadecimal digits",
        ),
        (
            with(|user| user.tenants = vec!["../x".into()]),
            "tenants: tenant ID",
        ),
        (
            with(|user| user.tenants = vec!["*".into(), "a".into()]),
            "beside \"*\"",
        ),
        (
            with(|user| user.scopes = vec!["rules".into()]),
            "not built yet",
        ),
        (
            with(|user| user.scopes = vec!["all".into()]),
            "none of write, read",
        ),
        (with(|user| user.scopes.clear()), "scopes: none is given"),
        (
            with(|user| user.certificate_names = vec!["x".into(), "x".into()]),
            "there twice",
        ),
    ] {
        assert!(told.contains(wanted), "{told}");
        assert!(!told.contains("geheim"), "{told}");
    }
    assert!(Credentials::new(vec![base(), base()]).is_err());
    let nothing = User {
        name: "n".into(),
        scopes: vec!["read".into()],
        ..User::default()
    };
    assert!(Credentials::new(vec![nothing]).is_err());
    let credentials = Credentials::new(vec![base()]).unwrap();
    let shown = format!("{credentials:?}");
    assert!(
        !shown.contains("argon2") && !shown.contains(&token_hash("u-token")),
        "{shown}"
    );
}

#[test]
fn what_the_tool_writes_is_what_the_file_takes() {
    let token = new_token();
    assert_eq!(token.len(), 64);
    assert_ne!(token, new_token());
    let made = User {
        name: "n".into(),
        password_hash: hash_password("geheim").unwrap(),
        token_sha256: vec![token_hash(&token)],
        scopes: vec!["read".into()],
        ..User::default()
    };
    assert!(!made.password_hash.contains("geheim"));
    let credentials = Credentials::new(vec![made]).unwrap();
    assert!(credentials.by_password("n", "geheim").is_some());
    assert!(credentials.by_password("n", "geheim ").is_none());
    assert!(credentials.by_token(&token).is_some());
}

/// Story: every spelling of one token was a secret of its own, and enough of them made everybody's be forgotten.
#[tokio::test]
async fn a_secret_is_remembered_once_however_it_is_written() {
    let of = authenticator();
    for spaces in 1..50 {
        let authorization = format!("bEaRer{}ops-token", " ".repeat(spaces));
        assert!(admit(&of, Route::Config, &authorization, "").await.is_ok());
    }
    let current = of.current();
    assert_eq!(format!("{:?}", current.verified()), "Cache(1 entries)");
}
