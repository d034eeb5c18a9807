//go:build !linux && !darwin

package ocilayout

import (
	"os"
	"path/filepath"
	"strings"
)

// networkFileSystem recognises a Windows share by its name; a letter that stands for one is not
// recognised.
func networkFileSystem(root *os.Root) string {
	if volume := filepath.VolumeName(root.Name()); strings.HasPrefix(volume, `\\`) && !strings.HasPrefix(volume, `\\?`) {
		return "share"
	}
	return ""
}
