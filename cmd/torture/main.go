// Torture takes the store through what happens to a store: processes that die, and power that goes.
// It is a program, because that needs processes.
//
//	torture torture  [--rounds N] [--seed S] [--durability both|process|power] [--dir DIR]
//	torture powercut [--cuts N] [--seed S] [--durability …] [--fs ext4|xfs] [--flush] [--within 2.5s] [--dir DIR]
//
// # The load
//
// A child process opens a layout, and eight writers push small images into three repositories as fast
// as they are answered: a config and one to three layers of 1 byte to 200 KiB, some of them shared
// between writers and rounds, a few named by sha512, uploaded in pieces, resumed, mounted or found
// to be there; lists of images; referrers; several tags in one push, tags that move, some of which all
// writers fight for; tags and manifests that are removed again, so that a layout stays small.
//
// A child tells each operation on a pipe, one line before it begins and one when it was answered
// ([Event]). From these lines the parent computes what a layout may look like ([Expectation]): what was
// answered must be there; of what was begun and not answered each operation may or may not have
// happened; of two that ran at once either may have come last. Nothing else is allowed.
//
// # torture
//
// Each round starts a child on the layout as the last one left it, kills it with SIGKILL at a random
// instant, 10 to 600 ms after the first answer, one time in eight during its start, and verifies. All
// rounds work on one layout. The same seed makes the same images and the same delays; the schedule
// is the kernel's.
//
// # powercut
//
// The layout lies on a file system in a file, and that file on an XFS with reflinks. A clone of the
// file (FICLONE) is what the disk holds at one instant: what nobody has flushed is still in memory, and
// not in it. Each clone is mounted and verified under another boot id, while the writers go on: they
// work for three seconds and then rest for a little longer than a promise takes, so that some cuts come
// upon full load and some upon silence. Every ten cuts a new child begins on a new disk.
//
// In durability power everything is demanded that was answered before the cut; in durability
// process, what was answered 2.5 s before it, or before the beginning of a flush that had ended, and of
// blobs only those that a manifest names. The clone holds all that was written to the block device: a
// disk that loses or reorders what lies in its own cache is not imitated.
//
// # What is verified
//
// By a process of its own, which opens the layout and demands:
//
//   - Each tag and each manifest is in a state that is allowed, by lookup and by list, and no other is there.
//   - A manifest is served with the bytes of its digest, its children are there, their bytes hash to
//     their digests, and the referrers of a subject are those that are to be.
//   - After Close, index.json parses, names exactly the tags that the registry does, and each image
//     that it names lies whole in blobs/. After a kill this holds before the layout is opened, too, but
//     for the tags, which index.json may follow later.
//   - skopeo reads tags from the directory: three every fifth round, and up to 200 at the end (torture only).
//
// The state of each tag and manifest is looked at in each round. Bytes are read for what the last
// four rounds touched and for a random sample of the rest, and for everything in the last round and
// after a power cut. If the store can collect garbage, it does so in every tenth round, before it is
// verified.
//
// # The report
//
// One line for each thing that is wrong, and one line for all, on standard output. A promise that
// was not kept is "lost"; bytes that are not those of their digest, and states that never were, are
// "wrong"; what cannot be opened, read or parsed is "unreadable"; an operation that the store should
// have taken and did not is "refused". The exit code is 1 if any of these is not 0, and what was found
// stays on disk.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = "usage: torture torture|powercut [flags]; -h after the command lists them"

// commands are what the program does; the last two are what it starts itself for.
var commands = map[string]func(ctx context.Context, args []string, out io.Writer) error{
	"torture":   torture,
	"powercut":  powercut,
	cmdWriters:  writersCommand,
	cmdVerifier: verifierCommand,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("%s", usage)
	}
	return commands[args[0]](ctx, args[1:], out)
}
