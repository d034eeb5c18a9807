package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// What lies where a layout is looked for, if it is none.
var (
	errAbsent = errors.New("is not there")
	errEmpty  = errors.New("is an empty directory")
	errOther  = errors.New("is not an OCI image layout: the directory holds other files")
	errFile   = errors.New("is not a directory")
)

// mustExist refuses a layout that is not there, for a command that looks for something in it: it is
// more likely a mistyped name than an empty layout.
func (a *app) mustExist(wanted []string) error {
	dir, err := a.layoutDir()
	if err != nil {
		return err
	}
	if err = examine(dir); err == nil {
		return nil
	}
	about, next := "", "--layout names another"
	if len(wanted) > 0 {
		about = strings.Join(wanted, ", ") + ": "
	}
	if canBecomeOne(err) {
		next = "berth push makes one, " + next
	}
	return fmt.Errorf("%slayout %s %w; %s", about, dir, err, next)
}

// mayBeMade refuses what cannot become a layout, for a command that makes one where there is nothing.
func (a *app) mayBeMade() error {
	dir, err := a.layoutDir()
	if err != nil {
		return err
	}
	if err = examine(dir); err == nil || canBecomeOne(err) {
		return nil
	}
	return fmt.Errorf("layout %s %w; name an empty directory or a layout", dir, err)
}

func canBecomeOne(found error) bool { return found == errAbsent || found == errEmpty }

// examine looks for a layout, and changes nothing. A directory that cannot be read passes: who opens it
// says why.
func examine(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errAbsent
	case errors.Is(err, syscall.ENOTDIR) || err == nil && !info.IsDir():
		return errFile
	case isLayout(dir):
		return nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case err != nil:
		return nil
	case len(entries) == 0:
		return errEmpty
	}
	return errOther
}

// isLayout reports whether a directory has what tells a layout from others. An index.json alone does not:
// programs of many kinds have one.
func isLayout(dir string) bool {
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	return has(v1.ImageLayoutFile) || has(".berth") || has(v1.ImageIndexFile) && has(v1.ImageBlobsDir)
}
