// Package systrace tells by which system calls a program sends what it sends, from what strace writes.
//
//	strace -D -f -o FILE -e trace=... PROGRAM
//
// With -D the process that is started is the program itself, so signals reach it and its end is its own;
// strace ends a moment later, and [Read] waits for that.
package systrace

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Package is the Debian package that has strace.
const Package = "strace"

// Sendfile is the call by which the kernel sends a file that the program never sees.
const Sendfile = "sendfile"

// calls are those that can send: sendfile, and those whose bytes went through the program.
var calls = []string{Sendfile, "write", "writev", "sendto", "sendmsg", "splice"}

// Count is how often a call was made that moved something, and how many bytes all of them moved.
type Count struct {
	Calls int
	Bytes int64
}

// Args are the arguments of a strace that writes into a file what a program does, which come before the
// program's own.
func Args(file string) []string {
	return []string{"-D", "-f", "-q", "-e", "signal=none", "-e", "trace=" + strings.Join(calls, ","), "-s", "0", "-o", file}
}

// patience is how long strace may take to end after the program.
const patience = 10 * time.Second

// Read waits for strace to have written all of a program that has ended, and counts by call.
//
// Errors: those of reading the file; that the program's end is not in it.
func Read(file string) (map[string]Count, error) {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if err == nil && ended.Match(text) {
			return Parse(string(text))
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%s: strace has not told the program's end: %w", file, errors.Join(err, os.ErrDeadlineExceeded))
		}
	}
}

var (
	ended = regexp.MustCompile(`(?m)^\d+ +\+\+\+ (exited with \d+|killed by \w+( \(core dumped\))?) \+\+\+\n\z`)
	// moved is a call, or the rest of one that others came between.
	moved = regexp.MustCompile(`^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>).* = (\d+)$`)
)

// Parse counts by call what strace has written.
func Parse(text string) (map[string]Count, error) {
	counts := map[string]Count{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		found := moved.FindStringSubmatch(lines.Text())
		if found == nil {
			continue
		}
		n, err := strconv.ParseInt(found[2], 10, 64)
		if err != nil {
			return nil, err
		}
		c := counts[found[1]]
		counts[found[1]] = Count{c.Calls + 1, c.Bytes + n}
	}
	return counts, lines.Err()
}
