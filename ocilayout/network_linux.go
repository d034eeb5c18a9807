package ocilayout

import (
	"os"

	"golang.org/x/sys/unix"
)

// networkKinds are the file systems, by the number that statfs(2) gives them, that other machines
// write to as well.
var networkKinds = map[uint32]string{
	unix.NFS_SUPER_MAGIC:   "nfs",
	unix.SMB_SUPER_MAGIC:   "smb",
	unix.SMB2_SUPER_MAGIC:  "smb2",
	unix.CIFS_SUPER_MAGIC:  "cifs",
	unix.AFS_SUPER_MAGIC:   "afs",
	unix.AFS_FS_MAGIC:      "afs",
	unix.CODA_SUPER_MAGIC:  "coda",
	unix.CEPH_SUPER_MAGIC:  "ceph",
	unix.V9FS_MAGIC:        "9p",
	unix.OCFS2_SUPER_MAGIC: "ocfs2",
	0x0BD00BD0:             "lustre",
	0x01161970:             "gfs2",
}

// networkFileSystem returns what kind of network file system a directory lies on, or "".
func networkFileSystem(root *os.Root) string {
	dir, err := root.Open(".")
	if err != nil {
		return ""
	}
	defer dir.Close()
	var st unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &st) != nil {
		return ""
	}
	return networkKinds[uint32(st.Type)]
}
