package auth

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxTokenAnswer bounds the body of a token server's answer.
	maxTokenAnswer = 1 << 20
	// exchangeLimit bounds the time that one exchange takes, however slowly the server sends.
	exchangeLimit = time.Minute
	// clientID is what an OAuth2 token server is told that asks for its client (RFC 6749, 2.2).
	clientID = "berth"

	// defaultLifetime is that of a token whose answer does not say (distribution's "Token
	// Authentication Specification", expires_in).
	defaultLifetime = 60 * time.Second
	// maxLifetime keeps a server's word for it within what time.Duration and reason can hold.
	maxLifetime = 24 * time.Hour
	// maxMargin is how long before its expiry a token is no longer used, at most. It covers clocks
	// that drift, and the time that a request takes to arrive.
	maxMargin = 30 * time.Second
)

// exchange is a request for a token.
type exchange struct {
	registry string // host that the token is for
	realm    *url.URL
	rule     *dialRule // where the realm may be
	service  string
	scopes   []Scope
	cred     Credential
}

// obtain returns a token for x from its realm.
//
// Errors: *Error. If a retry without the credential fails too, it is the first error: that one names
// the credential. That retry is for what can be public; a token that lacks the right to push would only
// be refused later, and by somebody who does not know why.
func (t *Transport) obtain(ctx context.Context, o *origin, x exchange) (*token, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	tok, err := t.exchange(ctx, o, x)
	if !t.AnonymousRetry || x.cred == (Credential{}) || !onlyPull(x.scopes) || !failedWith(err, refused) {
		return tok, err
	}
	x.cred = Credential{}
	if tok, again := t.exchange(ctx, o, x); again == nil {
		tok.turnedDown = err
		return tok, nil
	}
	return nil, err
}

func (t *Transport) exchange(ctx context.Context, o *origin, x exchange) (*token, error) {
	if x.cred.IdentityToken == "" || o.isGetOnly(x.realm) {
		return t.exchangeGET(ctx, x)
	}
	tok, err := t.exchangeIdentity(ctx, o, x)
	if !failedWith(err, maybeGetOnly) {
		return tok, err
	}
	tok, err = t.exchangeGET(ctx, x)
	if err == nil {
		// Only a GET that works proves it: a bad identity token has the same statuses.
		o.learnGetOnly(x.realm)
	}
	return tok, err
}

// refused reports whether a status turns a credential down.
func refused(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden
}

// maybeGetOnly reports whether a status is one that servers without OAuth2 answer a POST with.
// Distribution's specification says 404; the others are met in the wild.
func maybeGetOnly(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed ||
		status == http.StatusBadRequest || status == http.StatusUnauthorized
}

// failedWith reports whether err is of an exchange that the server ended with such a status.
func failedWith(err error, such func(status int) bool) bool {
	var e *Error
	return errors.As(err, &e) && such(e.Status)
}

// exchangeGET asks as distribution's "Token Authentication Specification" has it: Basic, or nothing.
func (t *Transport) exchangeGET(ctx context.Context, x exchange) (*token, error) {
	u := *x.realm
	query := u.Query()
	query.Set("service", x.service)
	for _, s := range x.scopes {
		query.Add("scope", s.String())
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, x.fail(0, "", err)
	}
	if username, password := x.cred.basic(); username != "" || password != "" {
		req.SetBasicAuth(username, password)
	}
	tok, _, err := t.ask(x, req)
	return tok, err
}

// exchangePOST asks as RFC 6749, 6 and distribution's "OAuth2 Token Authentication" have it. It returns
// also the identity token that takes the place of the one that was sent; "" where that stays good.
func (t *Transport) exchangePOST(ctx context.Context, x exchange) (tok *token, next string, err error) {
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {x.cred.IdentityToken},
		"client_id":     {clientID},
		"service":       {x.service},
	}
	if len(x.scopes) > 0 {
		form.Set("scope", scopeText(x.scopes))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, "", x.fail(0, "", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return t.ask(x, req)
}

func (t *Transport) ask(x exchange, req *http.Request) (tok *token, next string, err error) {
	t.identify(req)
	sent := t.clock()
	resp, body, err := t.read(x, req.WithContext(x.rule.under(req.Context())))
	if err != nil {
		return nil, "", err
	}
	return x.parse(resp.StatusCode, body, sent)
}

// read sends a request to the realm and returns the body of an answer of status 2xx.
func (t *Transport) read(x exchange, req *http.Request) (*http.Response, []byte, error) {
	client := http.Client{Transport: t.base(), CheckRedirect: stayAtOrigin}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, x.fail(0, "", withoutURL(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	switch {
	case err != nil:
		return nil, nil, x.fail(0, "", err)
	case len(body) > maxTokenAnswer:
		return nil, nil, x.fail(resp.StatusCode, "answer is larger than 1 MiB", nil)
	case resp.StatusCode/100 == 3:
		return nil, nil, x.fail(resp.StatusCode, "redirect to another host is not followed", nil)
	case resp.StatusCode/100 != 2:
		return nil, nil, x.fail(resp.StatusCode, diagnostics(body), nil)
	}
	return resp, body, nil
}

// stayAtOrigin follows a redirect only within the realm's own origin: the request holds credentials,
// and the address of the realm is what was checked.
func stayAtOrigin(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 || !sameOrigin(req.URL, via[0].URL) {
		return http.ErrUseLastResponse
	}
	return nil
}

// withoutURL takes off what net/http puts around an error: the address of a realm has a query that
// is as long as the server made it.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// parse reads a token from an answer of status 2xx, and the refresh token if there is one. It counts
// the token's life from when it was asked for, and not from issued_at, which is by the server's clock.
func (x exchange) parse(status int, body []byte, sent time.Time) (tok *token, next string, err error) {
	var answer struct {
		Token        string          `json:"token"`
		AccessToken  string          `json:"access_token"`
		ExpiresIn    json.RawMessage `json:"expires_in"`
		RefreshToken string          `json:"refresh_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, "", x.fail(status, "answer is not the JSON of a token", nil)
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if !isTokenValue(value) {
		return nil, "", x.fail(status, "answer has no usable token", nil)
	}
	return &token{
		value: value, realm: x.realm.String(), service: x.service, scopes: x.scopes, credential: x.cred.String(),
		expires: sent.Add(usable(lifetime(answer.ExpiresIn))),
	}, answer.RefreshToken, nil
}

// isTokenValue reports whether a token can stand in a header. RFC 6750, 2.1 allows less; servers
// send more.
func isTokenValue(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// lifetime reads expires_in: seconds, as a number, or as a string from servers that know no better.
func lifetime(expiresIn json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(strings.Trim(string(expiresIn), `"`), 64)
	if err != nil || !(seconds > 0) {
		return defaultLifetime
	}
	return time.Duration(min(seconds, maxLifetime.Seconds()) * float64(time.Second))
}

// usable is the part of a token's life in which it is sent.
func usable(life time.Duration) time.Duration { return life - min(life/4, maxMargin) }

// fail makes the error of an exchange. cause is set where there was no answer.
func (x exchange) fail(status int, message string, cause error) *Error {
	e := &Error{
		Registry: x.registry, Realm: line(x.realm.Host), Credential: x.cred.String(),
		Status: status, Message: line(redact(message, x.cred)), Err: cause,
	}
	if status != 0 {
		e.Err = statusError(status)
	}
	return e
}
