package ocilayout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

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
	if err := control.Recognise(dir); err != nil {
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

// makeLayout makes the directory a layout, as far as it is not one.
func (l *Layout) makeLayout() error {
	for _, name := range []string{ingestPath, v1.ImageBlobsDir + "/sha256"} {
		if err := l.dir.MkdirAll(name, 0o755); err != nil {
			return err
		}
	}
	l.dir.Temp = ingestPath
	if l.epoch.unused() {
		if err := l.takeUp(); err != nil {
			return err
		}
	}
	return l.checkVersion()
}

// takeUp makes sure that what is there and was not made by this process is flushed with the rest, and removes
// what a power cut has left unfinished.
func (l *Layout) takeUp() error {
	if err := l.dropUnfinished(); err != nil {
		return err
	}
	return errors.Join(l.dir.SyncPath(v1.ImageLayoutFile), l.dir.SyncPath(v1.ImageIndexFile), l.dir.SyncDir("."))
}

// dropUnfinished removes an index.json that is empty, in a directory where there is nothing that it could name.
// It was made when the power went, and not flushed.
func (l *Layout) dropUnfinished() error {
	root := l.dir.Root()
	info, err := root.Lstat(v1.ImageIndexFile)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxUnfinished {
		return nil
	}
	data, err := root.ReadFile(v1.ImageIndexFile)
	if err != nil || len(written(data)) > 0 {
		return err
	}
	bare, err := isBare(root.FS())
	if err != nil || !bare {
		return err
	}
	return l.dir.Remove(v1.ImageIndexFile)
}

// maxUnfinished bounds what is looked at as a file that a power cut left unfinished, in bytes.
const maxUnfinished = 4096

// written is what a file has of what was written to it: some file systems fill up the rest with zeros when
// the power goes.
func written(data []byte) []byte { return bytes.TrimRight(data, "\x00") }

// isBare reports whether a directory has nothing but what a layout begins with.
func isBare(dir fs.FS) (bare bool, err error) {
	bare = true
	err = fs.WalkDir(dir, ".", func(name string, entry fs.DirEntry, err error) error {
		top, _, _ := strings.Cut(name, "/")
		switch {
		case err != nil || name == v1.ImageLayoutFile || name == v1.ImageIndexFile:
			return err
		case name == control.Dir:
			return fs.SkipDir
		case entry.IsDir() && (name == "." || top == v1.ImageBlobsDir):
			return nil
		}
		bare = false
		return fs.SkipAll
	})
	return bare, err
}

// checkVersion makes sure that the directory says of itself which layout it is.
func (l *Layout) checkVersion() error {
	data, err := l.dir.Root().ReadFile(v1.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(written(data)) == 0 {
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
