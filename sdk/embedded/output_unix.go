//go:build unix && !linux

package embedded

import "golang.org/x/sys/unix"

func replace(descriptor, with int) error { return unix.Dup2(with, descriptor) }
