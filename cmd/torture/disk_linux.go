package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a file system in a file, mounted.
type disk struct {
	file, point string
	undo        cleanups
}

// newDisk makes a sparse file, a file system in it, and mounts that at file.d. mkfs is the program
// and its arguments, without the device.
func newDisk(ctx context.Context, file string, size int64, mkfs ...string) (*disk, error) {
	d := &disk{file: file}
	err := d.allocate(size)
	if err == nil {
		err = d.attach(ctx, mkfs, "")
	}
	if err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

// clone mounts what is on the disk at this instant as another disk. pictured is called when the
// instant has passed, and before the clone is mounted, which changes it.
func (d *disk) clone(ctx context.Context, file, options string, pictured func() error) (*disk, error) {
	c := &disk{file: file}
	err := c.allocate(0)
	if err == nil {
		err = reflink(file, d.file)
	}
	if err == nil {
		err = pictured()
	}
	if err == nil {
		err = c.attach(ctx, nil, options)
	}
	if err != nil {
		return nil, errors.Join(err, c.remove())
	}
	return c, nil
}

// reflink makes a file share the content that another one has at this instant.
func reflink(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = unix.IoctlFileClone(int(target.Fd()), int(source.Fd()))
	return errors.Join(os.NewSyscallError("ficlone", err), target.Close())
}

func (d *disk) allocate(size int64) error {
	f, err := os.OpenFile(d.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	d.undo.add(func() error { return os.Remove(d.file) })
	return errors.Join(f.Truncate(size), f.Close())
}

// attach gives the file a loop device, makes a file system if that is wanted, and mounts it.
func (d *disk) attach(ctx context.Context, mkfs []string, options string) error {
	device, err := output(ctx, "losetup", "--find", "--show", d.file)
	if err != nil {
		return err
	}
	device = strings.TrimSpace(device)
	d.undo.add(func() error { return finally("losetup", "--detach", device) })
	if len(mkfs) > 0 {
		if _, err := output(ctx, mkfs[0], append(mkfs[1:], device)...); err != nil {
			return err
		}
	}
	return d.mount(ctx, device, options)
}

func (d *disk) mount(ctx context.Context, device, options string) error {
	d.point = d.file + ".d"
	if err := os.Mkdir(d.point, 0o700); err != nil {
		return err
	}
	d.undo.add(func() error { return os.Remove(d.point) })
	if options == "" {
		options = "rw"
	}
	if _, err := output(ctx, "mount", "-o", options, device, d.point); err != nil {
		return err
	}
	d.undo.add(func() error { return unmount(d.point) })
	return nil
}

// remove unmounts the disk and removes its file.
func (d *disk) remove() error { return d.undo.run() }

func (d *disk) path(name string) string { return filepath.Join(d.point, name) }

// finally runs a program although everything else has been told to end.
func finally(program string, args ...string) error {
	_, err := output(context.Background(), program, args...)
	return err
}

// unmount waits for a while for those who have not let go yet.
func unmount(point string) (err error) {
	for range 50 {
		if err = finally("umount", point); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
