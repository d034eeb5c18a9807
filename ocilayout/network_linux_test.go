package ocilayout

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNetworkFileSystems(t *testing.T) {
	for magic, want := range map[uint32]string{
		unix.NFS_SUPER_MAGIC:  "nfs",
		unix.CIFS_SUPER_MAGIC: "cifs",
		unix.V9FS_MAGIC:       "9p",
		unix.EXT4_SUPER_MAGIC: "",
		unix.XFS_SUPER_MAGIC:  "",
		unix.TMPFS_MAGIC:      "",
	} {
		if got := networkKinds[magic]; got != want {
			t.Errorf("%#x: got %q, want %q", magic, got, want)
		}
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if kind := networkFileSystem(root); kind != "" {
		t.Skipf("the test itself runs on %s", kind)
	}
}
