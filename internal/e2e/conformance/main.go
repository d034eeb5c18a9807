// Conformance runs the conformance suite of the OCI distribution specification, which somebody has built,
// against a berth that it starts on a layout of its own: first with everything on that the suite can try of
// the specification's development, where nothing may fail or be skipped, and then as it is for 1.1.
//
//	conformance BERTH SUITE
//
// It prints a line for each run, and each test that did not pass. The exit code is 1 if there is any that
// ought to.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// suiteRun is one run of the suite.
type suiteRun struct {
	version string
	options []string // variables of the suite's environment
	whole   bool     // nothing may be skipped
}

var runs = []suiteRun{
	{"dev", []string{
		"OCI_DATA_SPARSE=true", "OCI_DATA_SHA512=true",
		"OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_BLOBS_MOUNT_ANONYMOUS=true", "OCI_API_BLOBS_DIGEST_HEADER=true",
		"OCI_API_MANIFESTS_TAG_PARAM=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true",
	}, true},
	{"1.1", nil, false},
}

func main() {
	if err := conform(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func conform(args []string) error {
	if len(args) != 2 || args[1] == "" {
		return errors.New("name the conformance program of the OCI distribution specification, as you have built it: make conformance CONFORMANCE=PATH")
	}
	berth, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	suite, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	var failing []string
	for _, r := range runs {
		fine, err := r.against(ctx, berth, suite)
		if err != nil {
			return err
		}
		if !fine {
			failing = append(failing, r.version)
		}
	}
	if len(failing) > 0 {
		return fmt.Errorf("berth does not conform to %s", strings.Join(failing, ", "))
	}
	return nil
}

// against makes one run, in a directory that is gone afterwards, and reports whether it went as it ought to.
func (r suiteRun) against(ctx context.Context, berth, suite string) (fine bool, err error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	address, stop, err := serve(ctx, berth, filepath.Join(dir, "layout"))
	if err != nil {
		return false, fmt.Errorf("%s: %w", berth, err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	begin := time.Now()
	out, ended := r.command(ctx, suite, dir, address).CombinedOutput()
	all, tests, err := results(filepath.Join(dir, "results", "junit.xml"))
	if err != nil {
		return false, fmt.Errorf("%s: %w\n%s", suite, cmp.Or(ended, err), out)
	}
	return r.judge(all, tests, time.Since(begin)) && ended == nil, nil
}

// command is the suite, which looks for its configuration in the directory where it runs and puts its
// results there.
func (r suiteRun) command(ctx context.Context, suite, dir, address string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, suite)
	cmd.Dir = dir
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "OCI_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "OCI_REGISTRY="+address, "OCI_TLS=disabled", "OCI_VERSION="+r.version)
	cmd.Env = append(cmd.Env, r.options...)
	return cmd
}

// judge counts and prints: all that the suite counts, in which a group of tests is one more.
func (r suiteRun) judge(all int, tests []test, took time.Duration) bool {
	count := map[string]int{}
	for _, t := range tests {
		kind := t.kind()
		count[kind]++
		if kind != passed {
			fmt.Printf("  %s: %s %s\n", kind, t.Name, strings.TrimSpace(t.Output))
		}
	}
	fmt.Printf("OCI distribution %s: of %d, %d are tests: %d passed, %d failed, %d skipped in %.1f s\n",
		r.version, all, len(tests), count[passed], count[failed], count[skipped], took.Seconds())
	return count[passed] > 0 && count[failed] == 0 && (count[skipped] == 0 || !r.whole)
}

// What a test came to.
const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped"
)

// test is one of the suite, as JUnit's format has it.
type test struct {
	Name   string `xml:"name,attr"`
	Status string `xml:"status,attr"`
	Output string `xml:"system-out"`
}

// kind takes whatever is neither passed nor skipped for failed.
func (t test) kind() string {
	if t.Status == passed || t.Status == skipped {
		return t.Status
	}
	return failed
}

func results(file string) (all int, tests []test, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, nil, err
	}
	var report struct {
		All   int    `xml:"tests,attr"`
		Tests []test `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(raw, &report); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", file, err)
	}
	return report.All, report.Tests, nil
}

// serve starts berth on a free port, and returns its address and what ends it.
func serve(ctx context.Context, berth, layout string) (string, func() error, error) {
	cmd := exec.CommandContext(ctx, berth, "serve", "--layout", layout, "--addr", "127.0.0.1:0", "--allow-sparse")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	_, address, found := strings.Cut(strings.TrimSpace(line), " at http://")
	if !found {
		return "", nil, errors.Join(fmt.Errorf("it says %q instead of its address", line), cmd.Process.Kill(), cmd.Wait())
	}
	stop := func() error { return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()) }
	return address, stop, nil
}
