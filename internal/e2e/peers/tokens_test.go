//go:build linux

package main

import (
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
)

// Tokens are for one user, whichever way that asks.
func TestTokensAreForOneUser(t *testing.T) {
	tokens, err := newTokenServer(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	defer tokens.close()
	if got, err := (&target{realm: tokens.address}).askToken(); err != nil || got == "" {
		t.Errorf("by GET: %q, %v", got, err)
	}
	for password, want := range map[string]int{tokenPassword: http.StatusOK, "canary.wrong": http.StatusUnauthorized} {
		form := url.Values{"service": {tokenService}, "username": {tokenUser}, "password": {password}, "scope": {"repository:a:pull"}}
		answer, err := http.PostForm("http://"+tokens.address+"/token", form)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("by POST, with %q: %s", password, answer.Status)
		}
	}
	if tokens.asked.Load() != 3 {
		t.Errorf("%d questions are counted, not 3", tokens.asked.Load())
	}
}
