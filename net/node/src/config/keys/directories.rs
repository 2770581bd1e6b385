//! The keys of directories beside the data directory.

use super::super::Config;
use super::super::setting::Setting;
use super::{Key, kind_of};

pub(super) fn keys() -> Vec<Key> {
    vec![
        key!(
            "data.core_dirs",
            "data.core-dirs",
            core_dirs,
            "/disk1/myelin,/disk2/myelin",
            "Directories, one on each disk, that the cores are spread over: log, checkpoints and chunk files of a core are in one of them instead of `data.dir`, and \
             wait for no other disk. They must exist, apart from each other and from `data.dir`, and are locked as it is. A core stays where it is, whatever their order; one \
             more has all cores placed anew by the start, for which each core reads the logs of all. One that holds cores and is missing keeps the node from starting."
        ),
        key!(
            "data.core_dirs_leaving",
            "data.core-dirs-leaving",
            core_dirs_leaving,
            "/disk3/myelin",
            "Directories of `data.core_dirs` until now whose cores the start moves to the others (to `data.dir` where there are none), so that they can be taken away."
        ),
        key!(
            "data.core_dirs_lost",
            "data.core-dir-lost",
            core_dirs_lost,
            "/disk4/myelin",
            "Directories of `data.core_dirs` until now that are gone for good with their disk, each as it was called at the last start, and in no other list. The start gives up what \
             their cores had not in blocks yet, which is hours of their series, keeps all else, and places the cores anew. One that is there is refused; one that holds nothing any more, \
             since a former start has done so, need not be named."
        ),
    ]
}
