//! Whom the API server serves first (API Priority and Fairness), of `spec.kubernetes.apiPriority`.
//!
//! A request belongs to the first schema that names its user, by precedence. Upstream's own: nodes, components and
//! `kube-system` come before 1000, service accounts at 9000, everybody else at 9900
//! (`k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`). Ours stand around the second.

use k8s_openapi::api::flowcontrol::v1::{
    FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject, LimitResponse,
    LimitedPriorityLevelConfiguration, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfiguration, PriorityLevelConfigurationReference,
    PriorityLevelConfigurationSpec, QueuingConfiguration, ResourcePolicyRule,
    ServiceAccountSubject, Subject,
};
use stoker_api::v1alpha1::{ApiPriority, PriorityPreset};

use crate::TenantObjects;
use crate::component::API_PRIORITY;
use crate::object_meta::cluster_wide;

/// Clients that work by themselves: before upstream's `service-accounts`.
const BACKGROUND: &str = "stoker-background";
const BACKGROUND_PRECEDENCE: i32 = 8900;
/// People: behind service accounts, before upstream's `global-default`.
const PEOPLE: &str = "stoker-people";
const PEOPLE_PRECEDENCE: i32 = 9800;

/// Shares of people. Upstream's levels have 245 in sum, of which `global-default`, where people are without a preset, has
/// 20 and `workload-low`, where service accounts are, 100.
const PEOPLE_SHARES: i32 = 60;

pub(crate) fn add(objects: &mut TenantObjects, asked: &ApiPriority) {
    let everybody = vec![group("system:authenticated")];
    objects.flow_schemas = vec![
        schema(BACKGROUND, BACKGROUND_PRECEDENCE, background(asked)),
        schema(PEOPLE, PEOPLE_PRECEDENCE, everybody),
    ];
    objects.priority_levels = vec![
        level(BACKGROUND, background_level(asked.preset)),
        level(
            PEOPLE,
            LimitedPriorityLevelConfiguration {
                nominal_concurrency_shares: Some(PEOPLE_SHARES),
                lendable_percent: Some(50),
                borrowing_limit_percent: None,
                limit_response: Some(queued(64, 50)),
            },
        ),
    ];
}

/// They have what is theirs and no more, whatever others leave idle. The rest is refused with 429 and a time to come
/// again, which clients of Kubernetes keep to.
fn background_level(preset: PriorityPreset) -> LimitedPriorityLevelConfiguration {
    let (shares, queue) = match preset {
        PriorityPreset::Agents => (40, 20),
        PriorityPreset::Batch => (15, 100),
    };
    LimitedPriorityLevelConfiguration {
        nominal_concurrency_shares: Some(shares),
        lendable_percent: Some(90),
        borrowing_limit_percent: Some(0),
        limit_response: Some(queued(64, queue)),
    }
}

/// Each client is dealt 6 queues of `queues`: one that floods does not fill those of another.
fn queued(queues: i32, length: i32) -> LimitResponse {
    LimitResponse {
        type_: "Queue".to_owned(),
        queuing: Some(QueuingConfiguration {
            queues: Some(queues),
            hand_size: Some(6),
            queue_length_limit: Some(length),
        }),
    }
}

fn background(asked: &ApiPriority) -> Vec<Subject> {
    if asked.namespaces.is_empty() {
        // Those of kube-system belong to an earlier schema.
        return vec![group("system:serviceaccounts")];
    }
    let all_of = |namespace: &String| Subject {
        kind: "ServiceAccount".to_owned(),
        service_account: Some(ServiceAccountSubject {
            namespace: namespace.clone(),
            name: "*".to_owned(),
        }),
        ..Subject::default()
    };
    asked.namespaces.iter().map(all_of).collect()
}

fn group(name: &str) -> Subject {
    Subject {
        kind: "Group".to_owned(),
        group: Some(GroupSubject {
            name: name.to_owned(),
        }),
        ..Subject::default()
    }
}

/// Every request of `subjects`, told apart by user.
fn schema(name: &str, precedence: i32, subjects: Vec<Subject>) -> FlowSchema {
    let any = || vec!["*".to_owned()];
    FlowSchema {
        metadata: cluster_wide(API_PRIORITY, name),
        spec: Some(FlowSchemaSpec {
            distinguisher_method: Some(FlowDistinguisherMethod {
                type_: "ByUser".to_owned(),
            }),
            matching_precedence: Some(precedence),
            priority_level_configuration: PriorityLevelConfigurationReference {
                name: name.to_owned(),
            },
            rules: Some(vec![PolicyRulesWithSubjects {
                subjects,
                resource_rules: Some(vec![ResourcePolicyRule {
                    api_groups: any(),
                    cluster_scope: Some(true),
                    namespaces: Some(any()),
                    resources: any(),
                    verbs: any(),
                }]),
                non_resource_rules: Some(vec![NonResourcePolicyRule {
                    non_resource_urls: any(),
                    verbs: any(),
                }]),
            }]),
        }),
        status: None,
    }
}

fn level(name: &str, limited: LimitedPriorityLevelConfiguration) -> PriorityLevelConfiguration {
    PriorityLevelConfiguration {
        metadata: cluster_wide(API_PRIORITY, name),
        spec: Some(PriorityLevelConfigurationSpec {
            type_: "Limited".to_owned(),
            limited: Some(limited),
            exempt: None,
        }),
        status: None,
    }
}
