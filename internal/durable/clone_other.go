//go:build !linux

package durable

import "os"

func clone(_, _ *os.File) error { return ErrNoClone }
