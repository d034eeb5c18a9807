package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
)

// getCredential asks a helper for the credential of a server; the zero Credential where it has none.
//
// Errors: what the helper said, which may be anything.
func getCredential(ctx context.Context, helper, server string) (Credential, error) {
	cmd := exec.CommandContext(ctx, helperPrefix+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = helperLeave
	answer, err := cmd.Output()
	if err != nil {
		said := string(bytes.TrimSpace(answer))
		switch failed := (*exec.ExitError)(nil); {
		case !errors.As(err, &failed) || said == "":
			return Credential{}, err
		case said == notStored:
			return Credential{}, nil
		}
		return Credential{}, errors.New(said)
	}
	var found struct{ Username, Secret string }
	if err := json.Unmarshal(answer, &found); err != nil {
		return Credential{}, fmt.Errorf("its answer does not parse: %w", err)
	}
	if found.Username == tokenUser {
		return Credential{IdentityToken: found.Secret}, nil
	}
	return Credential{Username: found.Username, Password: found.Secret}, nil
}
