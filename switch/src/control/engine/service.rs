//! Services of a compose file, as containers.

use axum::http::StatusCode;
use weft_control::{Code, ControlError, compose::Service};

use super::{containers::create_container, types::Failure};
use crate::control::runtime::Runtime;

impl Runtime {
    /// Makes and starts a service's container.
    pub(crate) fn start_service(&self, service: &Service) -> Result<(), ControlError> {
        let said = |Failure(status, message): Failure| {
            let code = match status {
                StatusCode::NOT_FOUND => Code::NotFound,
                StatusCode::CONFLICT => Code::Conflict,
                StatusCode::BAD_REQUEST => Code::Invalid,
                _ => Code::Unavailable,
            };
            ControlError::new(code, &service.key, format!("service {}: {message}", service.key))
        };
        let mut inner = self.lock();
        let id = create_container(&mut inner, Some(service.name.clone()), service.container.clone()).map_err(said)?;
        if !service.links.is_empty() {
            let mut model = inner.model.clone();
            let links = service.links.iter().map(|link| link.parse()).collect::<Result<_, _>>()?;
            if let Some(sandbox) = model.sandboxes.get_mut(&id) {
                sandbox.names.link = links;
            }
            inner.commit(model)?;
        }
        drop(inner);
        self.start_container(&id).map(drop).map_err(said)
    }
}
