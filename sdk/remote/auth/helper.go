package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// The protocol of docker's credential helpers: the program docker-credential-NAME is run with "get", is told
// the server on its standard input, and answers in JSON. It ends with an error, and says why, where it has no
// answer.
const (
	helperPrefix = "docker-credential-"
	// notStored is what it says where it has nothing for the server.
	notStored = "credentials not found in native keychain"
	// helperLeave is how long a helper that was ended may take to close its output.
	helperLeave = time.Second
	// maxHelperAnswer and maxHelperNoise bound, in bytes, what is kept of a helper's standard output and
	// standard error.
	maxHelperAnswer = 1 << 20
	maxHelperNoise  = 4 << 10
)

// helperAnswerJSON is what a helper answers.
type helperAnswerJSON struct{ Username, Secret string }

// getCredential asks a helper for the credential of a server; the zero Credential where it has none.
//
// Errors: what the helper said, on one line of bounded length and without the secret.
func getCredential(ctx context.Context, helper, server string) (Credential, error) {
	if strings.ContainsAny(helper, `/\`) {
		return Credential{}, errors.New("a helper is named without a path") // it would be a file below this directory
	}
	cmd := exec.CommandContext(ctx, helperPrefix+helper, "get")
	answer, noise := &bounded{max: maxHelperAnswer}, &bounded{max: maxHelperNoise}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(server), answer, noise
	cmd.WaitDelay = helperLeave
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended well, and left a daemon behind that has its output open
	}
	switch failed := (*exec.ExitError)(nil); {
	case errors.As(err, &failed) && string(bytes.TrimSpace(answer.kept)) == notStored:
		return Credential{}, nil
	case err != nil:
		return Credential{}, helperError(err, answer.kept, noise.kept)
	case answer.cut:
		return Credential{}, fmt.Errorf("its answer is larger than %d bytes", maxHelperAnswer)
	}
	var found helperAnswerJSON
	if json.Unmarshal(answer.kept, &found) != nil {
		// The decoder's error quotes what it stumbled over.
		return Credential{}, errors.New("its answer is not the JSON of a credential")
	}
	if found.Username == tokenUser {
		return Credential{IdentityToken: found.Secret}, nil
	}
	return Credential{Username: found.Username, Password: found.Secret}, nil
}

// helperError says why a helper failed, in its own words: the protocol has it write a message to its standard
// output, and programs that it uses write to its standard error. Where either has a credential in it, its words
// are left out.
func helperError(err error, answer, noise []byte) error {
	said := utterance(answer, nil)
	murmured := utterance(noise, secretOf(answer))
	if said == "" {
		said = err.Error()
	}
	if murmured != "" {
		said += " (standard error: " + murmured + ")"
	}
	return &runError{text: said, err: err}
}

// utterance makes what a program wrote fit for an error.
func utterance(raw []byte, secret []byte) string {
	text := bytes.TrimSpace(raw)
	if bytes.HasPrefix(text, []byte("{")) || bytes.Contains(bytes.ToLower(text), []byte(`"secret"`)) {
		return "what it wrote looks like a credential"
	}
	if len(secret) > 0 {
		text = bytes.ReplaceAll(text, secret, []byte(redacted))
	}
	return line(string(text))
}

// secretOf returns the secret of a helper's answer, if it is one.
func secretOf(answer []byte) []byte {
	var found helperAnswerJSON
	if json.Unmarshal(answer, &found) != nil {
		return nil
	}
	return []byte(found.Secret)
}

// runError is the end of a program, in that program's words.
type runError struct {
	text string
	err  error
}

func (e *runError) Error() string { return e.text }

func (e *runError) Unwrap() error { return e.err }

// bounded keeps the beginning of what is written to it.
type bounded struct {
	max  int
	kept []byte
	cut  bool
}

// Write takes all of p, so that who writes is not held up.
func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.max-len(b.kept))
	b.kept = append(b.kept, p[:n]...)
	b.cut = b.cut || n < len(p)
	return len(p), nil
}
