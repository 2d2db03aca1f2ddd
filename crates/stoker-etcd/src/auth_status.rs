//! The one RPC that etcd-client does not offer: whether authentication is on.

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct AuthStatusRequest {}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct AuthStatusResponse {
    #[prost(bool, tag = "2")]
    enabled: bool,
}

/// Whether authentication is on. While it is, only a user with the role root is told.
pub(crate) async fn auth_enabled(channel: Channel) -> Result<bool, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(Box::new(error)))?;
    let path = PathAndQuery::from_static("/etcdserverpb.Auth/AuthStatus");
    let codec = ProstCodec::<AuthStatusRequest, AuthStatusResponse>::default();
    let answer = grpc
        .unary(Request::new(AuthStatusRequest {}), path, codec)
        .await?;
    Ok(answer.into_inner().enabled)
}
