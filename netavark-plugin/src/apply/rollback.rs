//! The record of what was done, and undoing it, the last first.
//!
//! Deleting an interface takes its addresses, routes and settings with it; what is recorded besides is what would stay.
//! A process that is killed half-way leaves what it had made: teardown finds it by name, for no step makes anything
//! that teardown does not look for.

use super::container;
use crate::error::{Errors, Result};
use crate::namespaces::{Places, gone};
use ipnet::IpNet;
use slipway_host::netlink::{NewRoute, Request};
use std::path::{Path, PathBuf};

/// How to undo what was done.
#[derive(Debug, Default)]
pub struct Undo(Vec<Step>);

#[derive(Debug)]
enum Step {
    RemoveFile(PathBuf),
    DeleteOnHost(u32),
    DeleteInside(u32),
    NoVlanFiltering(u32),
    DeleteAddressOnHost(u32, IpNet),
    WriteBack { path: String, value: String },
    DeleteRoute(NewRoute),
}

impl Undo {
    pub(super) fn file(&mut self, path: &Path) {
        self.0.push(Step::RemoveFile(path.to_owned()));
    }

    pub(super) fn link_on_host(&mut self, index: u32) {
        self.0.push(Step::DeleteOnHost(index));
    }

    pub(super) fn link_inside(&mut self, index: u32) {
        self.0.push(Step::DeleteInside(index));
    }

    /// An address of an interface that may have been there before.
    pub(super) fn address_on_host(&mut self, index: u32, net: IpNet) {
        self.0.push(Step::DeleteAddressOnHost(index, net));
    }

    pub(super) fn vlan_filtering(&mut self, index: u32) {
        self.0.push(Step::NoVlanFiltering(index));
    }

    /// This interface is to stay, whatever becomes of the rest.
    pub(crate) fn keep(&mut self, index: u32) {
        self.0.retain(|step| !matches!(step, Step::DeleteOnHost(made) if *made == index));
    }

    /// A setting of the host as a whole; those of interfaces vanish with them.
    pub(super) fn setting(&mut self, path: String, value: String) {
        self.0.push(Step::WriteBack { path, value });
    }

    /// A route that does not vanish with the interface.
    pub(super) fn route(&mut self, route: NewRoute) {
        self.0.push(Step::DeleteRoute(route));
    }

    /// Undoes everything, as far as it goes.
    ///
    /// # Errors
    /// All that could not be undone.
    pub fn run(&mut self, places: &mut Places) -> Result<()> {
        let mut errors = Errors::new();
        for step in self.0.drain(..).rev() {
            errors.note(step.undo(places));
        }
        errors.finish()
    }
}

impl Step {
    fn undo(self, places: &mut Places) -> Result<()> {
        match self {
            Self::RemoveFile(path) => super::remove_file(&path),
            Self::DeleteOnHost(index) => gone(places.host.netlink.run_one(&Request::delete(index))),
            Self::DeleteInside(index) => gone(container(places)?.netlink.run_one(&Request::delete(index))),
            Self::NoVlanFiltering(index) => {
                gone(places.host.netlink.run_one(&Request::set_vlan_filtering(index, false)))
            }
            Self::DeleteAddressOnHost(index, net) => {
                gone(places.host.netlink.run_one(&Request::delete_address(index, net)))
            }
            Self::WriteBack { path, value } => Ok(std::fs::write(path, value)?),
            Self::DeleteRoute(route) => {
                gone(container(places)?.netlink.run_one(&Request::delete_route(&route)))
            }
        }
    }
}
