//! E0603
use pinfold_auth::{Operation, OperationInfo, ops};

pub struct Mine;
impl pinfold_auth::operation::sealed::Sealed for Mine {}
impl Operation for Mine {
    const INFO: OperationInfo = <ops::WorkspaceRead as Operation>::INFO;
}
