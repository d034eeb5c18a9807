package ocilayout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/internal/durable"
)

// openDirectory opens a directory that is an image layout, or can be made one.
func (l *Layout) openDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := recognise(dir); err != nil {
		return err
	}
	var err error
	if l.dir, err = durable.Open(dir); err != nil {
		return err
	}
	if kind := networkFileSystem(l.dir.Root()); kind != "" {
		return fmt.Errorf("%w: it lies on a network file system (%s), where neither locks nor a mapped index can be relied on; use a directory on a local disk", berth.ErrLayoutInvalid, kind)
	}
	return control.Make(l.dir.Root())
}

// recognise refuses a directory that holds something, and nothing of a layout: it is more likely a
// mistyped path than a wish.
func recognise(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case v1.ImageLayoutFile, v1.ImageIndexFile, control.Dir:
			return nil
		case v1.ImageBlobsDir: // a layout that lost the rest
			if info, err := os.Stat(filepath.Join(dir, v1.ImageBlobsDir, "sha256")); err == nil && info.IsDir() {
				return nil
			}
		}
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: the directory holds other files; name an empty directory or a layout", berth.ErrLayoutInvalid)
	}
	return nil
}

// makeLayout makes the directory a layout, as far as it is not one.
func (l *Layout) makeLayout() error {
	for _, name := range []string{ingestPath, v1.ImageBlobsDir + "/sha256"} {
		if err := l.dir.MkdirAll(name, 0o755); err != nil {
			return err
		}
	}
	l.dir.Temp = ingestPath
	return l.checkVersion()
}

func (l *Layout) checkVersion() error {
	data, err := l.dir.Root().ReadFile(v1.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		data, _ = json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
		return l.dir.WriteFile(v1.ImageLayoutFile, data, 0o644)
	}
	if err != nil {
		return err
	}
	var version v1.ImageLayout
	if json.Unmarshal(data, &version) != nil || version.Version != v1.ImageLayoutVersion {
		return fmt.Errorf("%w: its oci-layout file does not say version %s", berth.ErrLayoutInvalid, v1.ImageLayoutVersion)
	}
	return nil
}
