package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const tests = `package x

import (
	"encoding/base64"
	"fmt"
	"os"
	"testing"
)

var secret = "canary" + ".password"

func TestQuiet(t *testing.T) { t.Log("nothing to tell") }

func TestLog(t *testing.T) { t.Log("it is", secret) }

func TestStandardError(t *testing.T) {
	fmt.Fprintln(os.Stderr, "Authorization: Basic", base64.StdEncoding.EncodeToString([]byte("ada:"+secret)))
}

func TestInTwoPieces(t *testing.T) {
	fmt.Print(secret[:3])
	os.Stdout.Sync()
	fmt.Println(secret[3:])
}

func TestFail(t *testing.T) { t.Run("inner", func(t *testing.T) { t.Error("why it fails") }) }

func TestFailWithIt(t *testing.T) { t.Errorf("got %s", secret) }

func TestPanic(t *testing.T) { panic("for a reason") }
`

// module makes one with a file of tests.
func module(t *testing.T, tests string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range map[string]string{"go.mod": "module x\n", "x_test.go": tests} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What tests print is looked through, and what go test would print is printed, no more.
func TestTestsThatTellSecrets(t *testing.T) {
	dir := module(t, tests)
	for name, tt := range map[string]struct {
		code         int
		secrets      int
		prints, none string
	}{
		"TestQuiet":         {0, 0, "ok  \tx\t", "nothing to tell"},
		"TestLog":           {1, 1, "CANARY x TestLog tells canary" + ".password: ", ""},
		"TestStandardError": {1, 1, "CANARY x TestStandardError tells ", ""},
		"TestInTwoPieces":   {1, 1, "CANARY x TestInTwoPieces tells canary" + ".password: ", ""},
		"TestFail$":         {1, 0, "why it fails", "=== "},
		"TestFailWithIt":    {1, 1, "--- FAIL: TestFailWithIt", ""},
		"TestPanic":         {1, 0, "panic: for a reason", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			code, err := run(dir, []string{"-run", name}, &out)
			told := out.String()
			if err != nil || code != tt.code || strings.Count(told, "CANARY") != tt.secrets || !strings.Contains(told, tt.prints) {
				t.Errorf("%v, exit code %d and %d secrets, want %d and %d, and %q", err, code, strings.Count(told, "CANARY"), tt.code, tt.secrets, tt.prints)
			}
			if tt.none != "" && strings.Contains(told, tt.none) {
				t.Errorf("%q is in it", tt.none)
			}
		})
	}
}

func TestWhatDoesNotCompileIsTold(t *testing.T) {
	dir := module(t, "package x\nfunc {")
	var out bytes.Buffer
	if code, err := run(dir, nil, &out); err != nil || code == 0 || !strings.Contains(out.String(), "x_test.go:2") {
		t.Errorf("exit code %d, %v:\n%s", code, err, &out)
	}
}
