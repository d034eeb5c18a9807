// Command berth is an OCI registry for build tools, in one binary: it serves a layout directory,
// brings images in and out of it, pins their digests, and syncs selected tags to remote registries.
//
//	berth serve
//	berth push oci:out/image app/hello:v1
//	berth sync --to registry.example.com/team app/hello:v1
//
// It exits with 0 when it has done what was asked, with 1 when it could not, with 2 when it was asked
// in a way that it does not understand, and with 3 when it was asked to compare and found a difference,
// or to check and found a problem. After berth checkout it is what the command exited with, or why that
// did not run: 126 where it cannot be executed, 127 where it was not found.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/remote"
)

func main() {
	embedded.Main()
	ctx, stop := signal.NotifyContext(context.Background(), interruptions()...)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitDrift  = 3
)

// errDrift ends a command that has found and told a difference or a problem.
var errDrift = errors.New("drift found")

// usageError is a command line that is not understood.
type usageError struct{ error }

func run(ctx context.Context, args []string) int {
	app := &app{}
	cmd := app.root()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var status exitStatus
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		say(besides(err))
		return int(status)
	case errors.Is(err, errDrift):
		return exitDrift
	case !app.started: // what cobra says of a mistyped command has several lines
		say(errors.New(strings.Join(strings.Fields(err.Error()), " ")))
	case ctx.Err() != nil:
		say(app.interrupted())
		return exitFailed
	default:
		say(err)
	}
	if app.started && !isUsage(err) {
		return exitFailed
	}
	fmt.Fprintln(os.Stderr, "berth: see berth help")
	return exitUsage
}

// isUsage reports whether an error is about nothing but what was typed. What a registry refuses is not,
// whatever code it gives that.
func isUsage(err error) bool {
	if _, refused := err.(*remote.Error); refused {
		return false
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(part error) bool { return !isUsage(part) })
	}
	if inner := errors.Unwrap(err); inner != nil {
		return errors.As(err, new(usageError)) || isUsage(inner)
	}
	return errors.As(err, new(usageError)) || errors.Is(err, berth.ErrNameInvalid) || errors.Is(err, berth.ErrTagInvalid)
}

// say prints an error, each of joined ones on a line of its own, once.
func say(err error) {
	if err == nil {
		return
	}
	told := map[string]bool{"": true}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if !told[line] { // one full disk fails several steps
			fmt.Fprintln(os.Stderr, "berth:", line)
		}
		told[line] = true
	}
}

// warn prints what should be known although all that was asked for is done.
func warn(line string) { fmt.Fprintln(os.Stderr, "berth: warning:", line) }
