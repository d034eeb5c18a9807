package main

import (
	"errors"
	"io/fs"
	"os/exec"
	"syscall"
	"testing"
)

func TestWhatIsSaidBesidesACommandsEnd(t *testing.T) {
	disk := errors.New("disk full")
	for _, err := range []error{exitStatus(3), errors.Join(exitStatus(3), nil), errors.Join(errors.Join(nil, exitStatus(3)))} {
		if got := besides(err); got != nil {
			t.Errorf("%v: got %v", err, got)
		}
	}
	if got := besides(errors.Join(errors.Join(exitStatus(3), disk), nil)); got == nil || got.Error() != "disk full" {
		t.Errorf("got %v", got)
	}
}

func TestWhyACommandDidNotRun(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  exitStatus
		cause error
	}{
		{&exec.Error{Name: "x", Err: exec.ErrNotFound}, 127, exec.ErrNotFound},
		{&exec.Error{Name: "x", Err: &fs.PathError{Op: "stat", Path: "x", Err: syscall.ENOENT}}, 127, syscall.ENOENT},
		{&exec.Error{Name: "x", Err: fs.ErrPermission}, 126, fs.ErrPermission},
		{&fs.PathError{Op: "fork/exec", Path: "x", Err: syscall.ENOEXEC}, 126, syscall.ENOEXEC},
	} {
		err := notRun("x", c.err)
		var code exitStatus
		if !errors.As(err, &code) || code != c.code {
			t.Errorf("%v: the exit code is %d, want %d", c.err, code, c.code)
		}
		if got, want := besides(err).Error(), `command "x": `+c.cause.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
