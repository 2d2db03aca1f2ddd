//! Size classes: what the components request, how much an API server does at once, and how fast the others ask it.

use stoker_api::arguments::Component;
use stoker_api::v1alpha1::Size;

use super::arguments::Flag;

/// A request of CPU and of memory, as quantities.
pub(super) type Requests = (&'static str, &'static str);

/// Without a size: memory as measured on an idle tenant (PSS 235, 82 and 52 MB); little CPU, so that many idle tenants
/// fit a node.
const IDLE: [Requests; 3] = [("25m", "250Mi"), ("10m", "85Mi"), ("5m", "55Mi")];

/// Of one class, by component in the order of [`Component::ALL`]. docs/configuration.md has the same table.
struct Class {
    requests: [Requests; 3],
    /// Reads and writes under way at once in one API server.
    in_flight: (u32, u32),
    /// Requests per second to the API server, and above it for a moment, of each of the others.
    rates: [(u32, u32); 2],
}

fn class(size: Size) -> Class {
    match size {
        Size::Small => Class {
            requests: [("100m", "512Mi"), ("25m", "128Mi"), ("10m", "64Mi")],
            in_flight: (200, 100),
            rates: [(20, 30), (50, 100)],
        },
        Size::Medium => Class {
            requests: [("500m", "2Gi"), ("100m", "256Mi"), ("50m", "128Mi")],
            in_flight: (400, 200),
            rates: [(50, 100), (100, 200)],
        },
        Size::Large => Class {
            requests: [("2", "8Gi"), ("500m", "1Gi"), ("250m", "512Mi")],
            in_flight: (800, 400),
            rates: [(100, 200), (200, 400)],
        },
        Size::XLarge => Class {
            requests: [("4", "24Gi"), ("1", "4Gi"), ("500m", "1Gi")],
            in_flight: (1600, 800),
            rates: [(200, 400), (400, 800)],
        },
    }
}

/// What a component requests.
pub(super) fn requests(size: Option<Size>, component: Component) -> Requests {
    let all = size.map_or(IDLE, |size| class(size).requests);
    all[place(component)]
}

/// Flags that follow from the size; none without one.
pub(super) fn flags(size: Option<Size>, component: Component) -> Vec<Flag> {
    let Some(class) = size.map(class) else {
        return Vec::new();
    };
    let [first, second] = match component {
        Component::ApiServer => [
            ("max-mutating-requests-inflight", class.in_flight.1),
            ("max-requests-inflight", class.in_flight.0),
        ],
        Component::ControllerManager | Component::Scheduler => {
            let (rate, burst) = class.rates[place(component) - 1];
            [("kube-api-burst", burst), ("kube-api-qps", rate)]
        }
    };
    [first, second]
        .map(|(name, value)| (name, value.to_string()))
        .into()
}

fn place(component: Component) -> usize {
    match component {
        Component::ApiServer => 0,
        Component::ControllerManager => 1,
        Component::Scheduler => 2,
    }
}
