use std::time::Duration;

use super::*;

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 6443))
}

fn target(tenant: &str, backends: &[u8]) -> Target {
    Target {
        tenant: tenant.into(),
        backends: backends.iter().map(|number| address(*number)).collect(),
        ..Target::default()
    }
}

fn routes(backends: &[u8]) -> (Routes, Arc<Route>) {
    let routes = Routes::default();
    routes.set("one", &target("a/one", backends));
    let route = routes.find("one").unwrap();
    (routes, route)
}

#[test]
fn connections_go_where_the_fewest_are() {
    let (_, route) = routes(&[1, 2, 3]);
    let mut open: Vec<_> = (0..9)
        .map(|_| route.backend(Service::Api, &[]).unwrap())
        .collect();
    let on = |open: &[BackendInUse], number| {
        open.iter()
            .filter(|used| used.address() == address(number))
            .count()
    };
    assert_eq!([1, 2, 3].map(|number| on(&open, number)), [3, 3, 3]);
    open.retain(|used| used.address() != address(2));
    let next: Vec<_> = (0..3)
        .map(|_| route.backend(Service::Api, &[]).unwrap().address())
        .collect();
    assert_eq!(next, [address(2); 3]);
}

#[tokio::test(start_paused = true)]
async fn one_that_failed_rests_and_is_better_than_none() {
    let (_, route) = routes(&[1, 2]);
    let (first, second) = (
        route.backend(Service::Api, &[]).unwrap(),
        route.backend(Service::Api, &[]).unwrap(),
    );
    let failed = first.address();
    first.failed();
    drop((first, second));
    for _ in 0..5 {
        assert_ne!(route.backend(Service::Api, &[]).unwrap().address(), failed);
    }
    let other = route.backend(Service::Api, &[]).unwrap().address();
    assert_eq!(
        route.backend(Service::Api, &[other]).unwrap().address(),
        failed
    );
    assert!(route.backend(Service::Api, &[other, failed]).is_none());
    tokio::time::advance(Duration::from_secs(3)).await;
    let used: Vec<_> = (0..2)
        .map(|_| route.backend(Service::Api, &[]).unwrap())
        .collect();
    assert!(used.iter().any(|used| used.address() == failed));
}

#[test]
fn a_reload_keeps_what_is_known_of_those_that_stay() {
    let (routes, route) = routes(&[1, 2]);
    let used: Vec<_> = (0..4)
        .map(|_| route.backend(Service::Api, &[]).unwrap())
        .collect();
    routes.set("one", &target("a/one", &[2, 3]));
    assert!(Arc::ptr_eq(&routes.find("one").unwrap(), &route));
    assert_eq!(
        route.backend(Service::Api, &[]).unwrap().address(),
        address(3)
    );
    assert!(
        route
            .backend(Service::Api, &[address(3)])
            .unwrap()
            .address()
            == address(2)
    );
    drop(used);
}

#[test]
fn names_of_a_tenant_share_its_limits_and_outlive_no_one() {
    let (routes, route) = routes(&[1]);
    routes.set("two", &target("a/one", &[2]));
    assert!(Arc::ptr_eq(
        &routes.find("two").unwrap().tenant,
        &route.tenant
    ));
    // One that is made again while it has connections is the same one to the limits.
    routes.remove("one");
    routes.remove("two");
    assert!(routes.find("one").is_none() && routes.is_empty());
    routes.set("one", &target("a/one", &[1]));
    assert!(Arc::ptr_eq(
        &routes.find("one").unwrap().tenant,
        &route.tenant
    ));
    drop(route);
    routes.keep_only(|_| false);
    assert!(routes.tenants().is_empty());
    for number in 0..1000 {
        routes.set("one", &target(&format!("a/{number}"), &[1]));
    }
    assert!(
        routes.read().tenants.len() < 10,
        "{}",
        routes.read().tenants.len()
    );
}

#[test]
fn the_tunnel_of_a_tenant_is_elsewhere_than_its_api() {
    let (routes, route) = routes(&[1]);
    assert!(route.backend(Service::Tunnel, &[]).is_none());
    let target = Target {
        tunnel: vec![address(9)],
        ..target("a/one", &[1])
    };
    routes.set("one", &target);
    assert_eq!(
        route.backend(Service::Tunnel, &[]).unwrap().address(),
        address(9)
    );
    assert_eq!(
        route.backend(Service::Api, &[]).unwrap().address(),
        address(1)
    );
}

#[test]
fn another_tenant_under_the_same_name_is_another_route() {
    let (routes, route) = routes(&[1]);
    routes.set("one", &target("b/one", &[2]));
    assert!(route.backend(Service::Api, &[]).is_none());
    assert_eq!(routes.find("one").unwrap().tenant.name(), "b/one");
}

#[tokio::test(start_paused = true)]
async fn who_is_held_goes_on_when_a_backend_is_ready() {
    let (routes, route) = routes(&[]);
    let deadline = Instant::now() + Duration::from_secs(10);
    assert!(
        !route
            .ready(Service::Api, Instant::now() + Duration::from_secs(1), None)
            .await
    );
    let held = tokio::spawn({
        let route = route.clone();
        async move { route.ready(Service::Api, deadline, None).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    routes.set("one", &target("a/one", &[1]));
    assert!(held.await.unwrap());
    assert!(Instant::now() < deadline);
}

#[test]
fn a_storm_at_a_tenant_that_sleeps_is_told_of_once() {
    let (routes, route) = routes(&[]);
    let (waker, mut wanted) = Waker::new();
    let rests = |rest| {
        routes.set(
            "one",
            &Target {
                rest,
                ..target("a/one", &[])
            },
        );
    };
    let told = |wanted: &mut crate::waker::Wanted| {
        (0..1000).for_each(|_| waker.ask(&route));
        std::iter::from_fn(|| wanted.try_recv().ok()).count()
    };
    for (rest, times) in [
        (Rest::None, 0),
        (Rest::Asleep, 1),
        (Rest::Waking, 0),
        (Rest::Asleep, 1),
    ] {
        rests(rest);
        assert_eq!(told(&mut wanted), times, "{rest:?}");
    }
    assert_eq!(told(&mut wanted), 0, "asleep still");
    let later = Instant::now() + TELL_AGAIN;
    assert!(route.wants_waking(later) && !route.wants_waking(later));
}
