package auth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berthoci/berth"
)

// maxMessage bounds, in bytes, what of a token server's answer an Error repeats.
const maxMessage = 200

// Error is a token that could not be had: the token server refused, could not be reached, gave an
// answer that is none, or may not be asked. It holds no secret.
type Error struct {
	// Registry is the host that asked for a token: "registry.example:5000".
	Registry string
	// Realm is the host that gives tokens for it: "auth.example".
	Realm string
	// Credential says which credential was sent, as its String does. Empty: none was sent yet.
	Credential string
	// Status is the HTTP status of the token server's answer. Zero: there was no answer.
	Status int
	// Message is what the token server says is wrong, or what is wrong with it, on one line and
	// of bounded length. May be empty.
	Message string
	// Err is [berth.ErrDenied] for status 403, [berth.ErrTooManyRequests] for 429, nil for 5xx, and
	// [berth.ErrUnauthorized] for all else that the server answered and for a realm that may not be
	// asked. Where there was no answer it is the error of the transport below.
	Err error
}

// Error names the registry, the realm, the credential, and what the server said.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "token for %s from %s", e.Registry, e.Realm)
	if e.Credential != "" {
		fmt.Fprintf(&b, " as %s", e.Credential)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, ": %s", strings.TrimSpace(fmt.Sprint(e.Status, " ", http.StatusText(e.Status))))
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Status == 0 && e.Message == "" {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// statusError is the sentinel for a token server's status; nil where that says nothing about the
// caller's rights.
func statusError(status int) error {
	switch {
	case status == http.StatusForbidden:
		return berth.ErrDenied
	case status == http.StatusTooManyRequests:
		return berth.ErrTooManyRequests
	case status >= 500:
		return nil
	}
	return berth.ErrUnauthorized
}

// diagnostics finds what a token server says is wrong in the body of its answer. The shapes are
// those of the OCI distribution specification ("Error Codes"), of RFC 6749, 5.2, and of Docker Hub;
// a body that is in none of them is text.
func diagnostics(body []byte) string {
	var answer struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Details     string `json:"details"`
		Message     string `json:"message"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return string(body)
	}
	var parts []string
	for _, e := range answer.Errors {
		parts = append(parts, joinNonEmpty(": ", e.Code, e.Message))
	}
	parts = append(parts, joinNonEmpty(": ", answer.Error, answer.Description), answer.Details, answer.Message)
	if text := joinNonEmpty("; ", parts...); text != "" {
		return text
	}
	return string(body)
}

func joinNonEmpty(sep string, parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, sep)
}

// line makes text from elsewhere fit for an error: one line that a terminal shows as it is, of
// bounded length.
func line(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= maxMessage {
		return text
	}
	cut := maxMessage
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// redact takes the secrets of c out of text, in each form that they are sent in: a server may echo
// what it was given.
func redact(text string, c Credential) string {
	username, password := c.basic()
	pair := base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
	for _, secret := range []string{pair, c.Password, c.IdentityToken, c.AccessToken} {
		for _, form := range []string{secret, url.QueryEscape(secret)} {
			if form != "" {
				text = strings.ReplaceAll(text, form, redacted)
			}
		}
	}
	return text
}
