//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
)

func powercut(context.Context, []string, io.Writer) error {
	return errors.New("powercut: it clones mounted disks, which needs Linux")
}
