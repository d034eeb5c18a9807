package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk/embedded"
)

// checkoutVariable names the layout directory to a command that has it for itself.
const checkoutVariable = "BERTH_CHECKOUT"

// exitStatus ends berth as the command has ended that it ran.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// besides returns what went wrong beside the end of a command, which speaks for itself.
func besides(err error) error {
	if _, status := err.(exitStatus); status {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var others []error
	for _, part := range joined.Unwrap() {
		others = append(others, besides(part))
	}
	return errors.Join(others...)
}

// The exit codes of a command that did not run, as env(1) and timeout(1) have them.
const (
	exitNotExecutable exitStatus = 126
	exitNotFound      exitStatus = 127
)

// notRun is why a command did not run, with the exit code that says so.
func notRun(name string, err error) error {
	code, cause := exitNotExecutable, err
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = exitNotFound
	}
	for inner := errors.Unwrap(cause); inner != nil; inner = errors.Unwrap(cause) {
		cause = inner
	}
	return errors.Join(code, fmt.Errorf("command %q: %w", name, cause))
}

func (a *app) checkout() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checkout -- CMD [ARG...]",
		Short: "Run a command that may change the layout directory as it likes",
		Long: `Run a command that may change the layout directory as it likes, delete blobs included. Until it ends,
pushes and deletes wait, and pulls go on; then what it did is taken in. The directory is $BERTH_CHECKOUT
in its environment.

The exit code is the command's, or 128 and the number of the signal that ended it; 126 if the command
cannot be executed, and 127 if it is not found. A signal that would end berth (INT, TERM, HUP, QUIT) is
passed on to the command, and berth waits for its end. If berth itself is killed, the command is killed too
(on Linux), but not what the command has started: let a script exec the last program that it runs.`,
		Example: `  berth checkout -- sh -c 'umoci gc --layout "$BERTH_CHECKOUT"'
  berth checkout -- sh -c 'skopeo copy docker://alpine:3.20 "oci:$BERTH_CHECKOUT:base/alpine:3.20"'`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := exec.LookPath(args[0])
			if err != nil {
				return notRun(args[0], err)
			}
			return a.maintaining(cmd.Context(), embedded.MaintainOptions{}, func(m *embedded.Maintenance) error {
				return a.runCheckedOut(cmd.Context(), m, program, args)
			})
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command is the command's
	return cmd
}

// runCheckedOut runs a command while the directory is held. What it did is taken in however it ended.
func (a *app) runCheckedOut(ctx context.Context, m *embedded.Maintenance, program string, args []string) error {
	dir, err := a.layoutDir()
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return err
	}
	done, err := m.Checkout(ctx)
	if err != nil {
		return err
	}
	child := exec.Command(program)
	child.Args = args
	child.Env = append(os.Environ(), checkoutVariable+"="+dir)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = attend(ctx, child)
	if doneErr := done(context.WithoutCancel(ctx)); doneErr != nil {
		err = errors.Join(cmp.Or(err, error(exitStatus(exitFailed))), doneErr)
	}
	return err
}

// attend runs a command to its end, and hands signals on to it. The context keeps it from starting.
func attend(ctx context.Context, child *exec.Cmd) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passedOn()...)
	defer signal.Stop(signals)
	if err := ctx.Err(); err != nil {
		return err
	}
	ended, err := start(child)
	if err != nil {
		return notRun(child.Args[0], err)
	}
	for {
		select {
		case s := <-signals:
			if !reaches(s) {
				child.Process.Signal(s)
			}
		case err := <-ended:
			return statusOf(child, err)
		}
	}
}

// passedOn are the signals that would end this process, except those that it was started to ignore, as by
// nohup.
func passedOn() []os.Signal {
	return slices.DeleteFunc(slices.Clone(endings), signal.Ignored)
}

// start starts a command, which is to end with this process however that ends. The kernel takes the end of
// the thread that started it for that: so the thread stays until the command has ended.
func start(child *exec.Cmd) (ended <-chan error, err error) {
	endsWithParent(child)
	started, result := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := child.Start()
		if started <- err; err == nil {
			result <- child.Wait()
		}
	}()
	return result, <-started
}

// statusOf is how a command ended, where that was not well.
func statusOf(child *exec.Cmd, err error) error {
	if child.ProcessState == nil {
		return err
	}
	code := child.ProcessState.ExitCode()
	if status, ok := child.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	if code == 0 {
		return nil
	}
	return exitStatus(code)
}

// mustNotWaitForItself refuses a command that would wait for the end of the checkout that it is part
// of.
func mustNotWaitForItself(layout string) error {
	held := os.Getenv(checkoutVariable)
	if held == "" {
		return nil
	}
	one, err := os.Stat(held)
	other, otherErr := os.Stat(layout)
	if err != nil || otherErr != nil || !os.SameFile(one, other) {
		return nil
	}
	return fmt.Errorf("layout %s is checked out for the command that runs this one, which would wait for its own end; run it after berth checkout", layout)
}
