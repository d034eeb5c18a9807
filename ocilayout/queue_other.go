//go:build !linux

package ocilayout

import (
	"errors"
	"os"
)

// readQueue is not there.
type readQueue struct{}

func newReadQueue(*os.File, [][]byte) (*readQueue, error) { return nil, errors.ErrUnsupported }

func (*readQueue) begin(int, int64, int64) {}

func (*readQueue) wait(int) []byte { return nil }

func (*readQueue) end() {}

func (*readQueue) forget() {}
