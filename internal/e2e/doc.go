// Package e2e drives berth as people do: real programs, one against the other, over loopback and
// through directories. It holds tests, and the programs that compare, and it is a module of its own, so that what the tests
// need is no dependency of berth.
//
//	cd internal/e2e && go test -count=1 ./...          all of it
//	cd internal/e2e && go test -count=1 -short ./...   the same tests with fewer rounds
//
// -count=1 because go test does not know that berth itself is an input, and would repeat an old
// result.
//
// The programs must be installed, in Debian the packages skopeo, umoci, docker.io, docker-registry, podman, buildah, runc,
// chromium, strace and a few that are there anyway: a test that lacks one fails, and names it. crane, regctl and
// the distribution registry are built from the tool lines of this module's go.mod, BuildKit from those of
// the module in buildkit, and berth from the tree that it lies in. Nothing but loopback is spoken to.
//
// What mounts something or starts a daemon needs root, and is skipped without. A daemon has all its files
// in the test's own directories, and ends with the test.
package e2e
